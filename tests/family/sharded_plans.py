"""Run in a process with 8 fake devices: plans' whole steps on a mesh against one device.

`python sharded_plans.py 2x2x2/2 METHOD ...`: devices along data, fsdp and tensor; micro-batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import models
from distill.train.sharding import batch_sharding, state_shardings, whole
from distill.train.state import create_state
from family import make_planned_step
from tests.family.batches import VOCAB, make, objective, reading
from tests.family.drawn import GROUP
from tests.mesh_checks import assert_close, assert_placed, mesh_of

ROWS = 16 * GROUP


def config(hidden: int, tied: bool) -> models.ModelConfig:
    return models.ModelConfig(
        "qwen3", 16, hidden, 2 * hidden, 2, 4, 4, 8, qk_norm=True, tie_embeddings=tied
    )


def main(mesh_name: str, names: list[str]) -> None:
    mesh_text, _, parts = mesh_name.partition("/")
    student, teacher = config(32, True), config(48, False)
    params, theirs = (models.init(jax.random.key(i), c) for i, c in enumerate((student, teacher)))
    assert student.vocab_size > VOCAB  # distributions run over the ids that both have
    optimizer = optax.sgd(0.3, momentum=0.9)  # the momentum is the gradient

    def run(name: str, mesh, micro_batches: int):
        ours, other = (c.replace(mesh=mesh) for c in (student, teacher))
        state, inputs = create_state(params, optimizer), reading(name, make(0, rows=ROWS, width=12))
        teacher_params, out, places = theirs, None, None
        if mesh is not None:
            places = state_shardings(state, optimizer, ours, mesh)
            out = (places, whole(mesh))
            state = jax.device_put(state, places)
            teacher_params = jax.device_put(theirs, models.shardings(other, mesh))
            inputs = jax.device_put(inputs, batch_sharding(mesh))
        goal = objective(name, None, ours, other, normalise="sequence")
        step = jax.jit(make_planned_step(goal, optimizer, GROUP, micro_batches), out_shardings=out)
        new = step(state, teacher_params, inputs)
        if mesh is not None:
            assert_placed(new[0], places, "state")
        return jax.device_get(new)

    for name in names:
        single = run(name, None, 1)
        assert float(single[1]["grad_norm"]) > 1e-3 and np.isfinite(single[1]["loss"])
        several = run(name, mesh_of(mesh_text), int(parts or 1))
        worst = assert_close(several[0], single[0], f"{name}: ")
        # Group advantages cancel in the surrogate's value, which is 0 but for rounding.
        for key, x in single[1].items():
            np.testing.assert_allclose(several[1][key], x, rtol=1e-5, atol=1e-6, err_msg=key)
        print(f"{name}: {worst:.1e}")


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main(sys.argv[1], sys.argv[2:])
    print("equal")
