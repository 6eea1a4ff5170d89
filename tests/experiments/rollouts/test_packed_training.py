"""Training on a file of trajectories, several of them to a row."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import motab as motab_config
from experiments.compare.tokens import fit_batch_size
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import SYNTHESIS
from experiments.rollouts.trajectory_batches import TrajectoryBatches
from experiments.train.loop import run
from experiments.workdir.workdir import read_log

WIDTH = 256


def small(**synthesis) -> ConfigDict:
    config = motab_config.get_config("smoke")
    config.steps, config.batch_size = 4, 4
    config.data.train.size = 16
    for name in ("validation", "test", "long"):
        config.data[name].name = ""
    config.motab.max_total, config.motab.max_correction = 96, 48
    config.synthesis.update({"trajectories": 16, **synthesis})
    config.checkpoint.update({"every": 4, "keep_best": False})
    config.samples.every = 2
    return config


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of trajectories, by a run on unpacked rows."""
    workdir = tmp_path_factory.mktemp("apart") / "run"
    run(small(), workdir)
    return workdir / SYNTHESIS


def batches(file, **fields) -> TrajectoryBatches:
    config = small(**fields)
    return TrajectoryBatches(
        read_config(config), make_recipe(read_config(config), load_pair(read_config(config))), file
    )


def ids(batch) -> list[int]:
    return sorted(r["sample_id"] for r in batch["records"])


@pytest.mark.slow
def test_an_epoch_of_packed_rows_holds_every_trajectory_once(file):
    apart, packed = batches(file, pack_to=0), batches(file, pack_to=WIDTH)
    everything = sorted(i for _ in range(4) for i in ids(next(apart)))
    assert packed.used > 1.3 * apart.used and packed.kept == apart.kept
    first = next(packed)
    trajectories = first["trajectories"]
    assert trajectories.tokens_BxT.shape == (4, WIDTH)
    # 16 trajectories of at most 121 tokens fit into fewer rows than 16; an epoch may wrap around.
    rows = round(sum(len(r["token_ids"]) for r in first["records"]) / np.mean(
        np.sum(trajectories.segment_ids_BxT != 0, axis=1)))  # fmt: skip
    assert rows == 4 < len(first["records"])
    assert set(ids(first)) <= set(everything)
    for row, count in zip(trajectories.segment_ids_BxT, _counts(first), strict=True):
        assert row.max() == count


def _counts(batch):
    """Trajectories per row, by the borders of positions."""
    t = batch["trajectories"]
    return np.sum((t.positions_BxT == 0) & (t.segment_ids_BxT > 0), axis=1)


@pytest.mark.slow
def test_the_stream_goes_on_where_it_stood(file):
    stream = batches(file, pack_to=WIDTH)
    next(stream)
    state, second = stream.get_state(), next(stream)
    other = batches(file, pack_to=WIDTH)
    other.set_state(state)
    again = next(other)
    assert all(
        jax.tree.leaves(jax.tree.map(np.array_equal, again["trajectories"], second["trajectories"]))
    )
    assert ids(again) == ids(second)


@pytest.mark.slow
def test_a_run_trains_on_packed_rows(file, tmp_path):
    results = run(small(pack_to=WIDTH, file=str(file)), tmp_path / "run")
    log = [r for r in read_log(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"]
    assert len(log) == 4 and all(r["rows"] > 4 for r in log)
    assert all(np.isfinite(r["loss"]) and 0.5 < r["positions_used"] <= 1 for r in log)
    assert results["synthesis"]["trajectories"] == sum(r["rows"] for r in log)


@pytest.mark.slow
def test_rows_that_are_too_narrow_are_refused(file):
    with pytest.raises(ValueError, match=r"synthesis\.pack_to=20, but .* tokens\. Raise it"):
        batches(file, pack_to=20)


def test_token_budgets_need_rows_apart(tmp_path):
    with pytest.raises(ValueError, match=r"synthesis\.pack_to=256 with tokens_per_update"):
        fit_batch_size(read_config(small(pack_to=WIDTH)), 1000.0, tmp_path)
