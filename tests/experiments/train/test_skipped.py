"""A run whose losses are not finite: steps are skipped, and too many in a row end it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open

from experiments.checkpoints.files import find_step
from experiments.methods.protocol import Outcome
from experiments.train.loop import run
from experiments.train.skipped import Skipped, TooManySkipped, named_arrays
from experiments.workdir.workdir import read_log

from ..quick_runs import references


def outcome(step: int) -> Outcome:
    return Outcome(None, {}, ({"tokens": np.full(3, step)}, None), lambda: [{"id": step}])


def metrics(**fields):
    return {"loss": float("nan"), "grad_norm": 1.0, "skipped": 0, "idle": 0, **fields}


def test_counts_and_the_streak_go_on_where_they_were(tmp_path):
    console = Console(quiet=True)
    counted = Skipped(3, tmp_path, console)
    for step, fields in enumerate(
        [{}, {"skipped": 1}, {"idle": 1}, {"skipped": 1}, {"skipped": 1}]
    ):
        counted.count(step, metrics(**fields), outcome(step))
    assert counted.updates_missed == 4
    assert counted.results() == {"skipped_steps": 3, "idle_steps": 1}
    later = Skipped(3, tmp_path, console)
    later.set_state(json.loads(json.dumps(counted.get_state())))
    with pytest.raises(TooManySkipped, match=r"3 steps in a row up to step 5.*step-5\.safetensors"):
        later.count(5, metrics(skipped=1), outcome(5))
    with safe_open(tmp_path / "skipped" / "step-5.safetensors", "numpy") as file:
        assert list(file.get_tensor("0.tokens")) == [5, 5, 5]
        assert json.loads(file.metadata()["metrics"])["loss"] == "nan"
    assert json.loads((tmp_path / "skipped" / "step-5.jsonl").read_text()) == {"id": 5}
    with pytest.raises(ValueError, match="stop_after_skipped=0"):
        Skipped(0, tmp_path, console)


def test_arrays_are_named_by_their_path():
    tree = outcome(2).inputs
    assert named_arrays(tree).keys() == {"0.tokens"}


@pytest.mark.slow
def test_a_run_that_breaks_stops_with_its_batch(tmp_path):
    config = references(every=1)
    config.optimizer.learning_rate = 1e38  # the second step has weights that no logits come from
    config.optimizer.schedule = "constant"
    config.stop_after_skipped = 2
    with pytest.raises(TooManySkipped, match="2 steps in a row up to step 3") as caught:
        run(config, tmp_path)
    path = tmp_path / "skipped" / "step-3.safetensors"
    assert str(path) in str(caught.value)
    with safe_open(path, "numpy") as file:
        tokens, weights = (file.get_tensor(f"{x}_BxT") for x in ("tokens", "likelihood_weights"))
    assert tokens.shape == weights.shape and len(tokens) == config.batch_size
    train = [r for r in read_log(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert [r["skipped"] for r in train] == [0, 1, 1]
    assert not np.isfinite([float(train[1]["loss"]), float(train[1]["grad_norm"])]).all()
    assert find_step(tmp_path / "checkpoints", "final") == 2
    # Asked again it breaks at the same place: the streak is part of the checkpoint.
    with pytest.raises(TooManySkipped, match="2 steps in a row up to step 3"):
        run(config, tmp_path)
