"""Batches fitted to the tokens of an update, and runs of one arm that share what was synthesised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments.compare import tokens
from experiments.compare.arms import load_config
from experiments.compare.execute import compare
from experiments.compare.settings import read_study
from experiments.compare.tokens import (
    BatchSize,
    fit_batch_size,
    read_batch_size,
    tokens_per_trajectory,
)
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import SYNTHESIS, synthesise

from ..study_runs import FakeTrainer, small_study

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    ("per_trajectory", "copies", "expected"), [(50, 1, 32), (53, 2, 30), (45, 4, 36), (900, 1, 2)]
)
def test_the_batch_comes_as_close_as_whole_prompts_allow(
    per_trajectory, copies, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(tokens, "tokens_per_trajectory", lambda config: per_trajectory)
    config = load_config("configs/motab.py", "smoke")
    config.synthesis.trajectories_per_prompt = copies
    fitted = fit_batch_size(read_config(config), 1600, tmp_path / "arm")
    assert fitted == BatchSize(expected, per_trajectory)
    assert read_batch_size(tmp_path / "arm") == fitted


def test_a_target_below_one_batch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "tokens_per_trajectory", lambda config: 60.0)
    config = load_config("configs/motab.py", "smoke")
    with pytest.raises(ValueError, match=r"tokens_per_update=50: a batch of 2 trajectories .* 120"):
        fit_batch_size(read_config(config), 50, tmp_path)
    assert read_batch_size(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["motab", "rft"])
def test_what_is_measured_is_what_the_file_would_hold(name, tmp_path, monkeypatch):
    """Counted here from the file that offline training reads, without rows that train nothing."""
    monkeypatch.setattr(tokens, "MEASURED", 32)
    config = load_config(f"configs/{name}.py", "smoke")
    config.synthesis.trajectories = 32
    pair = load_pair(read_config(config))
    synthesise(
        read_config(config), pair, make_recipe(read_config(config), pair), tmp_path / SYNTHESIS
    )
    rows = [json.loads(line) for line in (tmp_path / SYNTHESIS).read_text().splitlines()[1:]]
    counts = [sum(w > 0 for w in row["likelihood_weights"]) for row in rows]
    assert len(counts) == 32
    assert 0 in counts or name != "rft"
    assert tokens_per_trajectory(read_config(config)) == pytest.approx(
        np.mean([n for n in counts if n])
    )


def test_references_are_measured_without_a_rollout(monkeypatch):
    monkeypatch.setattr(tokens, "MEASURED", 64)
    config = load_config("configs/pretrain.py", "student")
    config.data.train.max_steps = config.data.train.min_steps = 2
    # Two steps of ten characters, a box of nine, the end; a step has its delimiter of three.
    assert 30 <= tokens_per_trajectory(read_config(config)) <= 40


def fitting(asked: list[str], sizes: dict[str, int]):
    def fit(config, target, directory: Path) -> BatchSize:
        assert target == 1600
        assert config.batch_size == 32 and not config.data.test.name
        asked.append(directory.name)
        if directory.name not in sizes:
            raise ValueError("too long")
        directory.mkdir(parents=True, exist_ok=True)
        fitted = BatchSize(sizes[directory.name], 50.0)
        (directory / tokens.FILE).write_text(json.dumps(fitted.__dict__))
        return fitted

    return fit


@pytest.mark.slow
def test_every_run_of_an_arm_has_its_fitted_batch(tmp_path):
    asked: list[str] = []
    study = small_study(tokens_per_update=1600, learning_rates=(1e-3, 3e-3))
    train = FakeTrainer()
    options = {"console": QUIET, "arms": ["opd", "motab", "skd-08"]}
    fit = fitting(asked, {"opd": 36, "motab": 30})
    failed = compare(read_study(study), tmp_path, train=train, fit=fit, **options)
    assert failed == {"skd-08": "ValueError: too long"}
    sizes = {name: config.batch_size for name, config in train.asked}
    assert len(sizes) == 8
    assert all(n == {"opd": 36, "motab": 30}[name.partition("/")[0]] for name, n in sizes.items())
    table = json.loads((tmp_path / "table.json").read_text())
    assert {name: row["batch_size"] for name, row in table["arms"].items()} == {
        "opd": 36,
        "motab": 30,
    }
    assert "too long" in table["missing"]["skd-08/seed-0"]
    assert "too long" in (tmp_path / "skd-08" / "error.txt").read_text()

    # Measured once: a resumed study reads what it fitted.
    compare(read_study(study), tmp_path, train=train, fit=fitting(asked, {"skd-08": 34}), **options)
    assert asked == ["skd-08", "opd", "motab", "skd-08"]
    assert {config.batch_size for name, config in train.asked if "skd" in name} == {34}


@pytest.mark.slow
def test_an_interrupted_study_has_a_table(tmp_path):
    def interrupt(config):
        if config.seed == 1:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        compare(
            read_study(small_study()), tmp_path, train=FakeTrainer(fails=interrupt), console=QUIET
        )
    rows = json.loads((tmp_path / "table.json").read_text())["arms"]
    assert all(row["seeds"] == [0] for row in rows.values()) and rows


def test_learning_rates_share_what_was_synthesised(tmp_path):
    found: dict[str, bool] = {}

    class Train(FakeTrainer):
        def __call__(self, config, directory, console):
            name = f"{directory.parent.name}/{directory.name}"
            found[name] = (directory / SYNTHESIS).exists()
            super().__call__(config, directory, console)
            if config.method == "motab":
                (directory / SYNTHESIS).write_text(name)

    compare(
        read_study(small_study()), tmp_path, train=Train(), console=QUIET, arms=["opd", "motab"]
    )
    assert {name for name, there in found.items() if there} == {
        "motab/rate-0.001",
        "motab/rate-0.003",
    }
