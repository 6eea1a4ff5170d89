"""Run in a process with 8 fake devices: MOTAB's rollout and step on meshes against one device.

`python sharded_step.py 2x2x2 ...`, devices along data, fsdp and tensor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mesh_checks import assert_close, assert_divided, assert_placed, mesh_of

import models
import motab
from distill.steps.table import make_step_table
from distill.train.sharding import batch_sharding, state_shardings, whole
from distill.train.state import create_state

VOCAB, STEPS = 32, 3
TOKENS = [b"", b"a", b"b", b".", b"\n", b"\n\n", b".\n", b".\n\n"] + [b"c"] * (VOCAB - 8)
SETTINGS = motab.MotabSettings(
    gamma_0=0.03,
    boundary="static", student_temperature=1.0, teacher_temperature=1.0, max_step_tokens=6,
    max_total=24, max_correction=16, min_correction=2, chunk=8, safe_loss="reverse_kl",
)  # fmt: skip


def config(hidden: int, tied: bool) -> models.ModelConfig:
    return models.ModelConfig(
        "qwen3", VOCAB, hidden, 2 * hidden, 2, 4, 4, 8, qk_norm=True, tie_embeddings=tied
    )


def main(tied: bool, names: list[str]) -> None:
    configs = config(32, tied), config(48, not tied)
    student_params, teacher_params = (models.init(jax.random.key(i), c) for i, c in enumerate(configs))  # fmt: skip
    prompts = jax.random.randint(jax.random.key(2), (8, 5), 1, VOCAB)
    lengths = jnp.array([5, 1, 3, 4, 5, 2, 5, 3])
    # The momentum after the first step is the gradient itself.
    optimizer = optax.sgd(0.3, momentum=0.9)

    def run(mesh, trajectories=None, parts=1):
        student, teacher = (c.replace(mesh=mesh) for c in configs)
        state = create_state(student_params, optimizer)
        inputs, theirs = (prompts, lengths, jnp.arange(8)), teacher_params
        out = rows = places = None
        if mesh is not None:
            rows, places = batch_sharding(mesh), state_shardings(state, optimizer, student, mesh)
            out = (places, whole(mesh))
            state = jax.device_put(state, places)
            theirs = jax.device_put(theirs, models.shardings(teacher, mesh))
            inputs = jax.device_put(inputs, rows)
        rollout = motab.make_rollout(
            student, teacher, SETTINGS, make_step_table(TOKENS, ".\n\n"), (3, 4, 4), (1, 5), (0,)
        )
        written, record = jax.jit(rollout, out_shardings=rows)(
            state.params, theirs, *inputs, jax.random.key(3)
        )
        # Steps are compared on the same trajectories.
        trajectories = jax.device_get(written) if trajectories is None else trajectories
        placed = jax.device_put(trajectories, rows)
        step = jax.jit(
            motab.make_train_step(student, teacher, SETTINGS, optimizer, parts), out_shardings=out
        )
        if mesh is not None:
            inputs = state, theirs, placed
            assert_divided(step.lower(*inputs).compile(), inputs, mesh)
        history = []
        for _ in range(STEPS):
            state, metrics = step(state, theirs, placed)
            if mesh is not None:
                assert_placed(state, places, "state")
            history.append(jax.device_get((state, metrics)))
        return jax.device_get((written, record)), history

    (alone, record), single = run(None)
    assert np.any(record.breach_B >= 0) and np.any(record.breach_B < 0)
    assert single[0][1]["likelihood"] > 0 and single[0][1]["divergence"] > 0
    for name in names:
        mesh, _, parts = name.partition("/")
        (written, seen), several = run(mesh_of(mesh), alone, int(parts or 1))
        jax.tree.map(np.testing.assert_array_equal, written, alone)
        np.testing.assert_allclose(seen.values_BxL, record.values_BxL, atol=1e-4)
        for k in range(STEPS):
            worst = assert_close(several[k], single[k], f"{name}, step {k}: ")
        print(f"{name}, student {'tied' if tied else 'untied'}: {worst:.1e}")


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(False, sys.argv[1:])
    main(True, sys.argv[1:2])
    print("equal")
