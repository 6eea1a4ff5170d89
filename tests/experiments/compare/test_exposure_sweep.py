"""The exposure sweep: terciles, who is best how often, and the table made of finished runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs.studies import atesd as atesd_study
from experiments.compare.arms import make_plan, seed_directory
from experiments.compare.settings import read_study
from experiments.compare.sweep import difficulty
from experiments.compare.sweep import measurements as table
from experiments.compare.sweep.difficulty import terciles
from experiments.compare.sweep.measurements import best_shares, make_table
from experiments.compare.sweep.picture import draw_sweep, make_markdown, write_sweep
from experiments.compare.sweep.teachers import MEASURES, compare_teachers
from experiments.config.read import read_config

from ..study_runs import write_run

EXPOSURES = ("fixed-0", "fixed-50", "opsd")


def sweep_study():
    study = atesd_study.get_config()
    study.exposures, study.seeds, study.tokens_per_update = EXPOSURES, (0, 1), 0
    return study


def test_terciles_go_from_easy_to_hard_and_keep_the_order_of_equals():
    shares = {"a": 0.5, "b": 1.0, "c": 0.0, "d": 0.5, "e": 0.25, "f": 1.0, "g": 0.5}
    parts = terciles(shares)
    assert parts == {"easy": ["b", "f", "a"], "medium": ["d", "g"], "hard": ["e", "c"]}


def test_best_shares_count_wins_over_the_same_problems_and_seeds():
    rng = np.random.default_rng(0)
    base = rng.random((1, 3, 40))
    always = np.concatenate([base, base + 0.1, base])
    np.testing.assert_array_equal(best_shares(always, 200), [0, 1, 0])
    # Equals share a win; noise around equal means gives every arm a part.
    np.testing.assert_allclose(best_shares(np.concatenate([base, base]), 200), [0.5, 0.5])
    noisy = best_shares(rng.random((2, 1, 400)), 400)
    assert noisy.sum() == pytest.approx(1) and noisy.min() > 0.005


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Nine problems; a = 0 solves the hard third, a = .5 the medium one, a = 1 the easy one."""
    study = sweep_study()
    plan = make_plan(read_study(study))
    solved = {"fixed-0": (6, 9), "fixed-50": (3, 6), "opsd": (0, 3)}
    for arm, (start, stop) in solved.items():
        for seed in (0, 1):
            right = {("after", "test"): [[start <= i < stop] for i in range(9)]}
            write_run(seed_directory(tmp_path, arm, seed), plan.config(arm, seed, 1e-3, 32), right)
    shares = {f"chain/test/0/{i}": (8 - i) / 8 for i in range(9)}
    monkeypatch.setattr(table, "success_shares", lambda config, workdir: shares)
    values = {name: np.arange(3.0)[:, None] + np.linspace(0, 1, 5) for name in MEASURES}
    asked = []

    def teachers(config, exposures, problems):
        asked.append((config.data.test.name, exposures, problems))
        return values

    monkeypatch.setattr(table, "compare_teachers", teachers)
    return study, tmp_path, asked


def test_a_loss_that_is_the_mismatch_is_shown_once(finished):
    study, workdir, _ = finished
    text = write_sweep(read_study(study), workdir, None, 64, "command").read_text()
    assert "| exposure a |" in text and "mismatch |" in text and "loss |" not in text
    table = json.loads((workdir / "sweep.json").read_text())
    assert len(draw_sweep(table).axes) == 4
    table["teachers"]["loss"][0]["mean"] += 1
    assert "loss |" in make_markdown(table)
    assert len(draw_sweep(table).axes) == 5


def test_the_table_finds_the_best_exposure_of_every_tercile(finished):
    study, workdir, asked = finished
    found = make_table(make_plan(read_study(study), list(EXPOSURES)), workdir, 64)
    assert found["exposures"] == [0.0, 0.5, 1.0]
    assert asked == [("", (0.0, 0.5, 1.0), 64)]
    assert found["seeds"] == [0, 1]
    assert found["problems"] == {"all": 9, "easy": 3, "medium": 3, "hard": 3}
    means = {name: [x["mean"] for x in row] for name, row in found["accuracy"].items()}
    assert means["easy"] == [0, 0, 1] and means["medium"] == [0, 1, 0]
    assert means["hard"] == [1, 0, 0] and means["all"] == pytest.approx([1 / 3] * 3)
    assert [found["best"][x]["exposure"] for x in difficulty.TERCILES] == [1.0, 0.5, 0.0]
    assert found["best"]["easy"]["shares"] == [0, 0, 1]
    assert [x["mean"] for x in found["teachers"]["mismatch"]] == [0.5, 1.5, 2.5]


def test_the_report_says_what_is_there(finished):
    study, workdir, _ = finished
    text = write_sweep(read_study(study), workdir, None, 64, "python -m x").read_text()
    assert "| best a " in text and "`python -m x`" in text and "Seeds 0, 1" in text
    assert (workdir / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workdir / "sweep.json").read_text())["labels"][2] == "OPSD, a = 1"
    # With a seed that only one arm has there is no accuracy; the teachers remain.
    study.seeds = (0, 1, 2)
    text = write_sweep(read_study(study), workdir, [2], 64, "again").read_text()
    assert "No seed has a finished run" in text and "reference_nll" in text


def test_arms_that_are_no_sweep_are_refused(tmp_path):
    study = sweep_study()
    with pytest.raises(ValueError, match=r"arm grpo has no controller\.policy='fixed'"):
        make_table(make_plan(read_study(study), ["grpo", "opsd"]), tmp_path, 8)
    study.arms["fixed-50"].set.controller.fixed = 1.0
    with pytest.raises(ValueError, match=r"two arms have the same controller\.fixed"):
        make_table(make_plan(read_study(study), ["fixed-50", "opsd"]), tmp_path, 8)


@pytest.mark.slow
def test_more_exposure_makes_the_embedded_teacher_surer_and_farther():
    config = make_plan(read_study(sweep_study())).measuring_config("opsd")
    found = compare_teachers(read_config(config), (0.0, 1.0), 32)
    assert all(x.shape == (2, 32) and np.isfinite(x).all() for x in found.values())
    none, whole = 0, 1
    assert found["reference_nll"][whole].mean() < 0.5 * found["reference_nll"][none].mean()
    assert found["mismatch"][whole].mean() > 2 * found["mismatch"][none].mean()
    assert found["disagreement"][whole].mean() > found["disagreement"][none].mean()
    np.testing.assert_allclose(found["loss"], found["mismatch"], rtol=1e-4)  # unclipped forward KL


def test_shares_are_measured_once_and_kept(tmp_path, monkeypatch):
    config = make_plan(read_study(sweep_study())).arms["opsd"]
    config.data.test.size = 3
    config.evaluation.max_tokens = 24
    monkeypatch.setattr(difficulty, "SAMPLES", 2)
    shares = difficulty.success_shares(read_config(config), tmp_path)
    assert len(shares) == 3 and set(shares.values()) <= {0.0, 0.5, 1.0}
    monkeypatch.setattr(difficulty, "load_pair", None)  # is not called again
    assert difficulty.success_shares(read_config(config), tmp_path) == shares
