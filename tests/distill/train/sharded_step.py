"""Run in a process with 8 fake devices: OPD's rollout and step on meshes against one device.

`python sharded_step.py 2x2x2 1x2x4/2 ...`: devices along data, fsdp and tensor; and micro-batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from mesh_checks import assert_close, assert_divided, assert_placed, mesh_of

import distill.train.update
import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.rollouts.one_writer import make_rollout
from distill.train.sharding import batch_sharding, state_shardings, whole
from distill.train.state import create_state
from models.decoding.sampling import Sampling

VOCAB, ROWS, STEPS = 32, 16, 3
SIGNAL = Signal("reverse_kl")


def config(hidden: int, tied: bool) -> models.ModelConfig:
    return models.ModelConfig(
        "qwen3", VOCAB, hidden, 2 * hidden, 2, 4, 4, 8, qk_norm=True, tie_embeddings=tied
    )


def main(names: list[str]) -> None:
    student, teacher = config(32, True), config(48, False)
    params, teacher_params = (
        models.init(jax.random.key(i), c) for i, c in enumerate((student, teacher))
    )
    prompts = jax.random.randint(jax.random.key(2), (ROWS, 5), 1, VOCAB)
    lengths = jnp.asarray(np.random.default_rng(0).integers(1, 6, ROWS))
    # The momentum after the first step is the gradient itself.
    optimizer = optax.sgd(0.3, momentum=0.9)

    def run(mesh, micro_batches=1, trajectories=None):
        ours, theirs = (c.replace(mesh=mesh) for c in (student, teacher))
        state = create_state(params, optimizer)
        inputs, other = (prompts, lengths, jnp.arange(ROWS)), teacher_params
        out = rows = places = None
        if mesh is not None:
            rows, places = batch_sharding(mesh), state_shardings(state, optimizer, ours, mesh)
            out = (places, whole(mesh))
            state = jax.device_put(state, places)
            other = jax.device_put(other, models.shardings(theirs, mesh))
            inputs = jax.device_put(inputs, rows)
        rollout = jax.jit(make_rollout(ours, Sampling(), 12, (0,)), out_shardings=rows)
        written = rollout(state.params, *inputs, jax.random.key(3))
        # Steps are compared on the same trajectories.
        trajectories = jax.device_get(written) if trajectories is None else trajectories
        placed = jax.device_put(trajectories, rows)

        def loss(params, teacher_params, t):
            return trajectory_loss(params, ours, t, teacher_params, theirs, SIGNAL)

        step = jax.jit(
            distill.train.update.make_train_step(loss, optimizer, ours, micro_batches),
            out_shardings=out,
        )
        if mesh is not None:
            inputs = state, other, placed
            assert_divided(step.lower(*inputs).compile(), inputs, mesh)
        history = []
        for _ in range(STEPS):
            state, metrics = step(state, other, placed)
            if mesh is not None:
                assert_placed(state, places, "state")
            history.append(jax.device_get((state, metrics)))
        return jax.device_get(written), history

    alone, single = run(None)
    assert np.std(single[0][0].params["embed"]) > 0
    for name in names:
        mesh, _, parts = name.partition("/")
        written, several = run(mesh_of(mesh), int(parts or 1), alone)
        jax.tree.map(np.testing.assert_array_equal, written, alone)
        for k in range(STEPS):
            worst = assert_close(several[k], single[k], f"{name}, step {k}: ")
        print(f"{name}: {worst:.1e}")


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(sys.argv[1:])
    print("equal")
