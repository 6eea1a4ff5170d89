"""Run in a process with 8 fake devices: MOTAB through slots on a 2x2x2 mesh against one device."""

from __future__ import annotations

import jax
import numpy as np

import models
import motab
from distill.steps.table import make_step_table
from distill.train.sharding import batch_multiple, make_mesh
from distill.trajectories import Source
from experiments.rollouts import engine as module
from experiments.rollouts.engine import Engine, Request, key_data

VOCAB, ROWS = 32, 19
TOKENS = [b"", b"a", b"b", b".", b"\n", b"\n\n", b".\n", b".\n\n"] + [b"c"] * (VOCAB - 8)
SETTINGS = motab.MotabSettings(
    gamma_0=0.0312, boundary="static", student_temperature=1.0, teacher_temperature=1.0,
    max_step_tokens=6, max_total=24, max_correction=16, min_correction=2, chunk=8,
)  # fmt: skip


def config(hidden: int) -> models.ModelConfig:
    return models.ModelConfig("qwen3", VOCAB, hidden, 2 * hidden, 2, 4, 2, 8, qk_norm=True)


def main() -> None:
    assert len(jax.devices()) == 8
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    assert mesh is not None
    configs = config(32), config(48)
    params = tuple(models.init(jax.random.key(i), c) for i, c in enumerate(configs))
    generator = np.random.default_rng(0)
    key = key_data(jax.random.key(3))
    requests = [
        Request(tuple(map(int, generator.integers(1, VOCAB, n))), i, key)
        for i, n in enumerate(generator.integers(1, 6, ROWS))
    ]
    caches = []
    chunk = module._chunk

    def watched(*inputs):
        state, progress = chunk(*inputs)
        caches.append(state.caches[1].k[0].sharding)
        return state, progress

    def run(mesh):
        placed = [c.replace(mesh=mesh) for c in configs]
        slots = motab.make_slots(
            *placed, SETTINGS, make_step_table(TOKENS, ".\n\n"), (3, 4, 4), (1, 5), (0,)
        )
        where = params
        if mesh is not None:
            where = tuple(
                jax.device_put(p, models.shardings(c, mesh))
                for p, c in zip(params, placed, strict=True)
            )
        engine = Engine(slots, 6, 5, batch_multiple(mesh))
        assert engine.count == (6 if mesh is None else 8)
        found = {}
        for (trajectories, _), done in engine.run(where, requests):
            for b, request in enumerate(done):
                found[request.sample_id] = jax.tree.map(lambda x: x[b], trajectories)  # noqa: B023
        return [found[i] for i in range(ROWS)]

    alone = run(None)
    module._chunk = watched
    shared = run(mesh)
    jax.tree.map(np.testing.assert_array_equal, shared, alone)
    assert all(len(s.device_set) == 8 for s in caches)
    assert all(s.shard_shape((8, 2, 32, 8))[:2] == (2, 1) for s in caches), caches
    corrected = [np.any(t.source_BxT == Source.TEACHER) for t in alone]
    assert any(corrected)
    print("equal")


if __name__ == "__main__":
    main()
