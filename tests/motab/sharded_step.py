"""Run in a process with 8 fake devices: the MOTAB step on a 2x2x2 mesh against one device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import models
import motab
from distill.loss import trajectory_loss
from distill.sharding import batch_sharding, make_mesh, state_shardings
from distill.signal import Signal
from distill.state import create_state
from distill.steps import make_step_table

VOCAB = 32
TOKENS = [b"", b"a", b"b", b".", b"\n", b"\n\n", b".\n", b".\n\n"] + [b"c"] * (VOCAB - 8)
SETTINGS = motab.MotabSettings(
    gamma_0=0.03,
    boundary="static", student_temperature=1.0, teacher_temperature=1.0, max_step_tokens=6,
    max_total=24, max_correction=16, min_correction=2, chunk=8, safe_loss="reverse_kl",
)  # fmt: skip


def config(hidden: int, tied: bool) -> models.ModelConfig:
    return models.ModelConfig(
        "qwen3", VOCAB, hidden, 2 * hidden, 2, 4, 2, 8, qk_norm=True, tie_embeddings=tied
    )


def main(tied: bool) -> None:
    assert len(jax.devices()) == 8
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    assert mesh is not None
    student, teacher = config(32, tied), config(48, not tied)
    student_params = models.init(jax.random.key(0), student)
    teacher_params = models.init(jax.random.key(1), teacher)
    prompts = jax.random.randint(jax.random.key(2), (8, 5), 1, VOCAB)
    lengths = jnp.array([5, 1, 3, 4, 5, 2, 5, 3])
    optimizer = optax.adam(1e-2)

    def run(student, teacher, student_params, teacher_params, place):
        rollout = motab.make_rollout(
            student, teacher, SETTINGS, make_step_table(TOKENS, ".\n\n"), (3, 4, 4), (1, 5), (0,)
        )
        inputs = place((prompts, lengths, jnp.arange(8)))
        trajectories, record = jax.jit(rollout)(
            student_params, teacher_params, *inputs, jax.random.key(3)
        )

        def loss(params, trajectories):
            return trajectory_loss(
                params, student, trajectories, teacher_params, teacher, Signal(SETTINGS.safe_loss)
            ).mean

        value, grads = jax.jit(jax.value_and_grad(loss))(student_params, trajectories)
        step = motab.make_train_step(student, teacher, SETTINGS, optimizer)
        state = create_state(student_params, optimizer)
        if student.mesh is not None:
            state = jax.device_put(state, state_shardings(state, optimizer, student, student.mesh))
        state, metrics = jax.jit(step)(state, teacher_params, trajectories)
        return jax.device_get((trajectories, record, value, grads, metrics)), state

    single, _ = run(student, teacher, student_params, teacher_params, lambda x: x)
    on_mesh = [c.replace(mesh=mesh) for c in (student, teacher)]
    placed = [
        jax.device_put(p, models.shardings(c, mesh))
        for p, c in zip((student_params, teacher_params), on_mesh, strict=True)
    ]
    several, state = run(*on_mesh, *placed, lambda x: jax.device_put(x, batch_sharding(mesh)))

    assert np.any(single[1].breach_B >= 0) and np.any(single[1].breach_B < 0)
    for name in ("tokens_BxT", "source_BxT", "likelihood_weights_BxT", "divergence_weights_BxT"):
        np.testing.assert_array_equal(getattr(single[0], name), getattr(several[0], name), name)
    np.testing.assert_allclose(single[1].values_BxL, several[1].values_BxL, atol=1e-4)
    np.testing.assert_allclose(single[2], several[2], rtol=1e-5)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(single[3]), jax.tree.leaves(several[3]), strict=True
    ):
        error = np.abs(a - b).max() / np.abs(a).max()
        assert error < 1e-5, (jax.tree_util.keystr(path), error)
        print(jax.tree_util.keystr(path), error)
    np.testing.assert_allclose(single[4]["grad_norm"], several[4]["grad_norm"], rtol=1e-5)

    gate = state.params["layers"]["gate"]
    assert gate.sharding.spec == PartitionSpec(None, "fsdp", "tensor"), gate.sharding
    assert gate.addressable_shards[0].data.size * 4 == gate.size
    moments = state.opt_state[0].mu["layers"]["gate"]
    assert moments.sharding.spec == gate.sharding.spec


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    for tied in (False, True):
        main(tied)
    print("equal")
