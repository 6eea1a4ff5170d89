"""A run that is tracked and traced: what others are told is what the log holds, once, also resumed."""

from __future__ import annotations

import gzip
import json

import pytest

from experiments.train.loop import run
from experiments.workdir.tracking import scalars
from experiments.workdir.workdir import read_log

from ..atesd_runs import small
from ..event_files import tensorboard_points, wandb_points


@pytest.mark.slow
def test_a_resumed_run_tells_every_point_once_and_leaves_a_trace(tmp_path):
    config = small("fixed-smoke")
    config.steps, config.samples.every, config.samples.rows = 4, 1, 1
    config.checkpoint.update({"every": 2, "max_to_keep": 2})
    config.tracking.update({"tensorboard": True, "wandb": "offline"})
    config.profile.update({"first": 2, "steps": 1})
    run(config, tmp_path)
    # As if it had been killed after step 4 was logged and before it was saved.
    (tmp_path / "results.json").unlink()
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "gone")
    run(config, tmp_path)
    log = read_log(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in log if r["kind"] == "train"] == [1, 2, 3, 4]
    expected = {(n, r["step"]): v for r in log for n, v in scalars(r).items()}
    for points, pages in (
        tensorboard_points(tmp_path / "tensorboard"),
        wandb_points(tmp_path / "wandb"),
    ):
        told = {(name, step): value for name, step, value in points}
        assert len(points) == len(told)
        assert told.keys() == expected.keys()
        assert all(abs(told[k] - v) <= 1e-6 * abs(v) for k, v in expected.items())
        assert len(pages) == 4
    traces = list((tmp_path / "profile").rglob("*.trace.json.gz"))
    assert traces
    events = json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"]
    assert any("train_step" in str(e.get("name", "")) for e in events)
