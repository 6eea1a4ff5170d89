"""Run in several processes at once: what they share equals what one process has on its own.

`python two_processes.py DIRECTORY --coordinator=HOST:PORT --num_processes=2 --process_id=0`
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import distill.train.update
import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.sharding import batch_sharding, make_mesh, state_shardings, whole
from distill.train.state import create_state
from distill.trajectories import Trajectories
from experiments.checkpoints.checkpoints import Checkpoints, abstract
from experiments.command.flags import Flag, read_flags
from experiments.command.process_flags import ProcessFlags
from experiments.machine.processes import any_process, fetch, first_does, is_first, place_rows
from experiments.workdir.shared import open_workdir

CONFIG = models.ModelConfig("qwen3", 32, 32, 64, 2, 4, 2, 8, qk_norm=True)
ROWS, WIDTH = 8, 12


def batch() -> Trajectories:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 32, (ROWS, WIDTH)).astype(np.int32)
    at = np.broadcast_to(np.arange(WIDTH, dtype=np.int32), tokens.shape)
    weights = (at > 3).astype(np.float32)
    return Trajectories(tokens, np.ones_like(tokens), weights, weights, at, np.ones_like(tokens))


def one_step(config: models.ModelConfig, place) -> tuple:
    """The state after a step, whose momentum is the gradient, and the metrics."""
    optimizer = optax.sgd(0.1, momentum=0.9)

    def loss(params, teacher, t):
        return trajectory_loss(params, config, t, teacher, config, Signal("reverse_kl"))

    def create():
        return create_state(models.init(jax.random.key(0), config), optimizer)

    places = out = teacher_places = None
    if config.mesh is not None:
        places = state_shardings(jax.eval_shape(create), optimizer, config, config.mesh)
        out, teacher_places = (places, whole(config.mesh)), places.params
    state = jax.jit(create, out_shardings=places)()
    teacher = jax.jit(
        lambda: models.init(jax.random.key(1), config), out_shardings=teacher_places
    )()
    step = jax.jit(distill.train.update.make_train_step(loss, optimizer, config), out_shardings=out)
    return step(state, teacher, place(batch()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ProcessFlags):
    directory: Annotated[Path, Flag("that both processes see", positional=True)]


def main(settings: Settings) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    settings.join()
    assert jax.process_count() == 2 and len(jax.local_devices()) == 2 and len(jax.devices()) == 4
    mesh = make_mesh({"data": 2, "fsdp": 2})
    assert mesh is not None

    placed = place_rows(batch(), mesh)
    assert placed.tokens_BxT.sharding == batch_sharding(mesh)
    assert not placed.tokens_BxT.is_fully_addressable
    assert placed.tokens_BxT.addressable_shards[0].data.shape == (ROWS // 4, WIDTH)
    jax.tree.map(np.testing.assert_array_equal, fetch(placed), batch())

    assert any_process(is_first()) and not any_process(False)
    assert (first_does(lambda: 7) == 7) == is_first()
    expected = (ZeroDivisionError, "division") if is_first() else (RuntimeError, "first process")
    with pytest.raises(expected[0], match=expected[1]):
        first_does(lambda: 1 / 0)

    with jax.default_device(jax.local_devices()[0]):
        alone = jax.device_get(one_step(CONFIG, lambda x: x))
    state, metrics = one_step(CONFIG.replace(mesh=mesh), lambda x: place_rows(x, mesh))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(fetch((state, metrics))),
        strict=True,
    ):  # fmt: skip
        error = np.abs(x - y).max() / max(np.abs(x).max(), 1e-30)
        assert error < 1e-5, (jax.tree_util.keystr(path), error)

    # Every process writes its parts; a directory that the others do not see is refused.
    shared = settings.directory
    with open_workdir(shared / "run", {"seed": 0}) as workdir:
        workdir.append_metrics({"step": 1, "kind": "train"})
        with Checkpoints(workdir.checkpoints) as checkpoints:
            checkpoints.save(1, state, {"batches": {}}, 0.5)
            checkpoints.wait()
            restored = checkpoints.restore_latest(abstract(state))
        assert restored is not None and restored.step == 1
        jax.tree.map(np.testing.assert_array_equal, fetch(restored.state), fetch(state))
        gate = restored.state.params["layers"]["gate"]
        assert gate.sharding.spec == PartitionSpec(None, "fsdp", "tensor"), gate.sharding
        lines = (workdir.path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 1
    with pytest.raises(RuntimeError, match="file system that all processes share"):
        open_workdir(shared / f"not-shared-{jax.process_index()}", {"seed": 0})
    print("equal")


if __name__ == "__main__":
    main(read_flags(Settings, "two_processes.py", ""))
