"""A study's plan and its execution: what runs, in what order, and what is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs.studies import motab as motab_study
from experiments.checkpoints.checkpoints import Checkpoints
from experiments.compare.arms import load_config, make_plan, without_tests
from experiments.compare.best import measure_best
from experiments.compare.execute import compare
from experiments.compare.settings import read_study
from experiments.config.read import read_config
from experiments.pair.pair import load_pair, start_student
from experiments.workdir.workdir import config_differences, read_log

from ..study_runs import FakeTrainer, small_study, write_run

ROOT = Path(__file__).resolve().parents[3]
QUIET = Console(quiet=True)

SCORE = {"accuracy": 0.5, "interval": [0.2, 0.8], "n": 2}


def execute(study, workdir, train, **options):
    return compare(read_study(study), workdir, train=train, console=QUIET, **options)


def runs_in(workdir: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of every run: its bytes and when it was written."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in workdir.glob("*/*/**/*")
        if path.is_file()
    }


@pytest.mark.parametrize("arg", motab_study.ARGUMENTS)
def test_every_arm_of_the_study_loads_and_starts_from_the_same_student(arg):
    study = motab_study.get_config(arg).lock()
    plan = make_plan(read_study(study))
    assert list(plan.arms) == list(study.arms)
    first, *others = (config.to_dict() for config in plan.arms.values())
    for config in others:
        for field in ("student", "teacher", "prompt", "data", "evaluation", "steps", "batch_size"):
            assert config[field] == first[field], field
    assert first["steps"] == study.updates


def test_the_arms_of_the_sweep_differ_in_gamma_0_alone():
    study = motab_study.get_config()
    plan = make_plan(read_study(study))
    swept = [plan.arms[name].to_dict() for name in study.sweep]
    assert [config["motab"]["gamma_0"] for config in swept] == [0.1, 0.3, 0.7, 0.9]
    for config in swept[1:]:
        differences = config_differences(swept[0], config)
        assert [line.partition(":")[0] for line in differences] == ["motab.gamma_0"]


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="nonsense"):
        motab_study.get_config("nonsense")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"arms": ["opd", "ppo"]}, "--arms: 'ppo'"), ({"seeds": [0, 7]}, "--seeds: 7")],
)
def test_an_unknown_arm_or_seed_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        execute(small_study(), tmp_path, FakeTrainer(), **options)


def test_rates_are_chosen_on_validation_before_any_test_set_is_touched(tmp_path):
    """Highest validation accuracy; among equals the lowest rate; the final checkpoint's."""

    def validation(config):
        if config.method == "motab":
            return (0.9, {3e-4: 0.2, 1e-3: 0.6, 3e-3: 0.6}[config.optimizer.learning_rate])
        return (0.1, config.optimizer.learning_rate)

    train = FakeTrainer(validation)
    assert not execute(small_study(), tmp_path, train, arms=["opd", "motab"])
    assert train.names == [
        *(
            f"{arm}/rate-{rate}"
            for arm in ("opd", "motab")
            for rate in ("0.0003", "0.001", "0.003")
        ),
        *(f"{arm}/seed-{seed}" for seed in (0, 1) for arm in ("opd", "motab")),
    ]
    configs = dict(train.asked)
    for name, config in train.asked[:6]:
        assert config.seed == 1000
        assert config.data.test.name == config.data.long.name == ""
        metrics = read_log(tmp_path / name / "metrics.jsonl")
        assert {record["kind"] for record in metrics} == {"train", "validation"}
        assert not (tmp_path / name / "samples").exists()
    for seed in (0, 1):
        for arm, rate in (("opd", 3e-3), ("motab", 1e-3)):
            config = configs[f"{arm}/seed-{seed}"]
            assert config.seed == seed
            assert config.optimizer.learning_rate == rate
            assert config.data.test.name == "chain/test"
            assert config.is_locked
    chosen = json.loads((tmp_path / "table.json").read_text())["arms"]["opd"]["selection"]
    assert chosen["rate"] == 0.003 and chosen["at_end"]
    assert chosen["validation"] == {"0.0003": 0.0003, "0.001": 0.001, "0.003": 0.003}


def test_a_single_rate_needs_no_choice(tmp_path):
    train = FakeTrainer()
    execute(small_study(learning_rates=(2e-3,)), tmp_path, train, arms=["opd"], seeds=[1])
    assert train.names == ["opd/seed-1"]
    assert train.asked[0][1].optimizer.learning_rate == 2e-3


def test_finished_runs_are_not_repeated_and_the_rest_is(tmp_path):
    execute(small_study(), tmp_path, FakeTrainer(), arms=["opd"], seeds=[0])
    before = runs_in(tmp_path)
    table = (tmp_path / "table.json").read_text()
    train = FakeTrainer()
    execute(small_study(), tmp_path, train, arms=["opd"], seeds=[0])
    assert not train.asked
    assert runs_in(tmp_path) == before
    assert json.loads(table)["arms"] == json.loads((tmp_path / "table.json").read_text())["arms"]

    # A run without results was interrupted; another arm and seed are added.
    (tmp_path / "opd" / "rate-0.001" / "results.json").unlink()
    execute(small_study(), tmp_path, train, arms=["opd", "skd-08"], seeds=[0, 1])
    assert train.names == [
        *(f"skd-08/rate-{rate}" for rate in ("0.0003", "0.001", "0.003")),
        *("opd/rate-0.001", "skd-08/seed-0", "skd-08/seed-1", "opd/seed-1"),
    ]
    after = runs_in(tmp_path)
    assert all(after[name] == before[name] for name in before if "rate-0.001" not in name)
    rows = json.loads((tmp_path / "table.json").read_text())["arms"]
    assert {name: row["seeds"] for name, row in rows.items()} == {"skd-08": [0, 1], "opd": [0, 1]}


@pytest.mark.slow
def test_a_directory_belongs_to_one_set_of_rules(tmp_path):
    execute(small_study(), tmp_path, FakeTrainer(), arms=["opd"])
    with pytest.raises(
        ValueError, match=r"learning_rates: \[0\.0003, 0\.001, 0\.003\] in the workdir"
    ):
        execute(small_study(learning_rates=(3e-4,)), tmp_path, FakeTrainer())
    changed = small_study()
    changed.arms.opd.arg = "topk_student"
    with pytest.raises(ValueError, match=r"(?s)rate-0\.0003 holds a run .*signal\.support"):
        execute(changed, tmp_path, FakeTrainer())
    # An arm without runs may still change.
    changed = small_study()
    changed.arms.motab.set = {"motab": {"alpha": 0.5}}
    assert not execute(changed, tmp_path, FakeTrainer())


@pytest.mark.slow
def test_a_budget_stops_new_runs_and_the_table_says_what_is_missing(tmp_path):
    train = FakeTrainer()
    # A run takes a minute: 3 + 3 to choose rates, then one of seed 0.
    failed = execute(
        small_study(),
        tmp_path,
        train,
        arms=["opd", "motab"],
        budget=6.5,
        clock=lambda: 60.0 * len(train.asked),
    )
    assert not failed
    assert train.names[6:] == ["opd/seed-0"]
    missing = json.loads((tmp_path / "table.json").read_text())["missing"]
    assert set(missing) == {"motab/seed-0", "opd/seed-1", "motab/seed-1"}
    assert (
        "- `motab/seed-0`: not started within --budget 6.5" in (tmp_path / "table.md").read_text()
    )

    other = FakeTrainer()
    execute(small_study(), tmp_path, other, budget=0)
    assert not other.asked
    missing = json.loads((tmp_path / "table.json").read_text())["missing"]
    assert "no learning rate was chosen" in missing["skd-08/seed-0"]


@pytest.mark.slow
def test_a_failed_arm_is_reported_and_the_others_go_on(tmp_path):
    def fails(config):
        return config.method == "motab" and config.seed == 0

    train = FakeTrainer(fails=fails)
    failed = execute(small_study(), tmp_path, train, arms=["motab", "opd"])
    assert failed == {"motab": "RuntimeError: no such luck"}
    # The arm is not tried on the other seed.
    assert train.names[6:] == ["opd/seed-0", "motab/seed-0", "opd/seed-1"]
    assert "no such luck" in (tmp_path / "motab" / "seed-0" / "error.txt").read_text()
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table["arms"]) == ["opd"]
    assert set(table["missing"]) == {"motab/seed-0", "motab/seed-1"}
    # Once it works, it goes on.
    train = FakeTrainer()
    assert not execute(small_study(), tmp_path, train, arms=["motab", "opd"])
    assert train.names == ["motab/seed-0", "motab/seed-1"]
    assert not (tmp_path / "motab" / "seed-0" / "error.txt").exists()


def test_the_best_checkpoint_is_measured_once_and_apart_from_training(tmp_path, monkeypatch):
    study = small_study(checkpoint="best", learning_rates=(3e-4, 1e-3))
    study.shared.checkpoint.keep_best = True
    measured = []

    def measure(config, data, directory):
        assert data.test.name == "chain/test"
        measured.append(directory.name)
        verdicts = {("after", "test"): [[True], [False]]}
        given = json.loads((directory / "config.json").read_text())
        write_run(directory, given, verdicts, (0.9, 0.1))
        (directory / "best.json").write_text(
            json.dumps({"best_step": 2, "after": SCORE, "long": {}})
        )

    monkeypatch.setattr("experiments.compare.execute.measure_best", measure)
    # The best checkpoint decides the rate too.
    train = FakeTrainer(lambda c: (0.9, 0.1) if c.optimizer.learning_rate == 1e-3 else (0.2, 0.5))
    assert not execute(study, tmp_path, train, arms=["opd"])
    assert all(config.data.test.name == "" for _, config in train.asked)
    assert measured == ["seed-0", "seed-1"]
    row = json.loads((tmp_path / "table.json").read_text())["arms"]["opd"]
    assert row["best_step"] == [2, 2]
    assert row["learning_rate"] == 1e-3
    assert row["accuracy"]["test"]["mean"] == 0.5
    assert not execute(study, tmp_path, train, arms=["opd"])
    assert len(measured) == 2


@pytest.mark.slow
def test_measuring_the_best_checkpoint_loads_it(tmp_path):
    """The student's own weights, saved as the best of two checkpoints, score as they did before."""
    config = load_config("configs/opd.py", "smoke")
    for name in ("test", "long"):
        config.data[name].size = 4
    config.evaluation.max_tokens, config.evaluation.batch_size = 24, 4
    data = read_config(config).data
    config = without_tests(config)
    params = start_student(load_pair(read_config(config)), config.seed)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": params}, {}, accuracy=0.6)
        broken = {"params": {name: 0 * np.ones(2) for name in params}}
        checkpoints.save(2, broken, {}, accuracy=0.4)
    measure_best(read_config(config), data, tmp_path)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["best_step"] == 1
    for name in ("test", "long"):
        files = [tmp_path / "samples" / f"{role}-{name}.jsonl" for role in ("before", "after")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert best["before"]["n"] == best["long"]["teacher"]["n"] == 4


@pytest.mark.slow
def test_the_command_from_end_to_end(tmp_path):
    """The smoke study: batches fitted, the same start, a table."""
    study = tmp_path / "study"
    command = ["-m", "experiments.compare", "--config", "configs/studies/motab.py:smoke"]
    done = subprocess.run(
        [sys.executable, *command, "--workdir", str(study)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for arm in ("opd", "motab"):
        metrics = read_log(study / arm / "seed-0" / "metrics.jsonl")
        assert {record["kind"] for record in metrics} == {"train", "validation", "evaluation"}
        assert (study / arm / "batch.json").exists()
    table = json.loads((study / "table.json").read_text())
    assert table["same_start"] is True
    assert list(table["arms"]) == ["opd", "motab"]
    assert "opd" in table["arms"]["motab"]["differences"]
    for row in table["arms"].values():
        assert row["updates"] == 4
        assert row["loss_tokens"] > 0
    assert table["arms"]["motab"]["monitor"]["sampled"] == 32
    markdown = (study / "table.md").read_text()
    assert "--config configs/studies/motab.py:smoke" in markdown
    assert (study / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (study / "monitor.png").exists()


@pytest.mark.parametrize(("arms", "seeds"), [(["ppo"], None), (["opd"], [7])])
def test_an_arm_or_seed_that_is_not_in_the_study_is_refused(arms, seeds):
    with pytest.raises(ValueError, match=r"--(arms: 'ppo'|seeds: 7) is not in the study"):
        make_plan(read_study(small_study()), arms, seeds)
