"""TensorBoard and W&B are told what metrics.jsonl holds: every point, and every point once."""

from __future__ import annotations

import builtins
import json
import types
from pathlib import Path

import pytest

from experiments.config.sections import TrackingSettings
from experiments.workdir.tracking import Trackers, require, scalars
from experiments.workdir.workdir import METRICS, Workdir, read_log

from ..event_files import tensorboard_points, wandb_points
from ..report_runs import HOSTILE, trajectory

OFF = {"tensorboard": False, "wandb": "off", "project": "motab", "name": ""}
BOTH = TrackingSettings(**{**OFF, "tensorboard": True, "wandb": "offline"})


def record(step: int, loss: float) -> dict:
    return {"step": step, "kind": "train", "loss": loss, "tokens": 10 * step}


def run(directory: Path, first: int, last: int, resume_after: int = -1) -> None:
    """A stretch of a run that logs every step, a validation and a trajectory at every second."""
    with Workdir(directory, {"a": {"b": 1}}) as workdir:
        workdir.cut_back(resume_after)
        logs = [read_log(directory / name) for name in ("metrics.jsonl", "trajectories.jsonl")]
        with Trackers(BOTH, {"a": {"b": 1}}, directory, *logs) as trackers:
            workdir.tracker = trackers
            for step in range(first, last + 1):
                workdir.append_metrics(record(step, 1.0 / step))
                if step % 2 == 0:
                    workdir.append_trajectories([trajectory(step, i, HOSTILE) for i in range(2)])
                    workdir.append_metrics({"step": step, "kind": "validation", "accuracy": 0.5})


def expected(directory: Path) -> dict[tuple[str, int], float]:
    return {
        (name, r["step"]): pytest.approx(value)
        for r in read_log(directory / METRICS)
        for name, value in scalars(r).items()
    }


def test_both_hold_what_the_log_holds(tmp_path):
    run(tmp_path, 1, 4)
    points, texts = tensorboard_points(tmp_path / "tensorboard")
    assert len(points) == len(set(p[:2] for p in points))
    assert {(name, step): value for name, step, value in points} == expected(tmp_path)
    assert texts == {(f"trajectories/{i}", step) for i in (0, 1) for step in (2, 4)}
    points, pages = wandb_points(tmp_path / "wandb")
    assert len(points) == len(set(p[:2] for p in points))
    assert {(name, step): value for name, step, value in points} == expected(tmp_path)
    assert pages == [2, 4]


def test_a_resumed_run_has_every_point_once(tmp_path):
    """Killed after step 5, resumed from the checkpoint of step 3: steps 4 and 5 come again."""
    run(tmp_path, 1, 5)
    run(tmp_path, 4, 6, resume_after=3)
    assert [r["step"] for r in read_log(tmp_path / METRICS) if r["kind"] == "train"] == [
        *range(1, 7)
    ]
    for points, _ in (
        tensorboard_points(tmp_path / "tensorboard"),
        wandb_points(tmp_path / "wandb"),
    ):
        assert len(points) == len(set(p[:2] for p in points))
        assert {(name, step): value for name, step, value in points} == expected(tmp_path)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_pages_hold_their_texts_escaped_and_in_colour(tmp_path):
    run(tmp_path, 1, 2)
    pages = [p.read_text() for p in (tmp_path / "wandb").rglob("*.html")]
    assert len(pages) == 1 and pages[0].count("<div") == 2
    assert any("#c65b00" in page and 'title="teacher"' in page for page in pages)
    assert all("<script" not in page and "&lt;script&gt;" in page for page in pages)


def test_an_online_run_is_not_told_again_what_it_has(tmp_path):
    """A stand-in for the package: there is no server here."""
    told, calls = [], {}

    class Run:
        step = 4  # a server that has steps up to 3

        def log(self, values, step):
            told.append((step, values))

        def finish(self, exit_code):
            calls["exit_code"] = exit_code

    package = types.SimpleNamespace(
        init=lambda **kwargs: calls.update(kwargs) or Run(),
        Settings=lambda **kwargs: kwargs,
    )
    from experiments.workdir.tracking import WeightsAndBiases

    settings = TrackingSettings(**{**OFF, "wandb": "online", "name": "mine"})
    tracker = WeightsAndBiases(package, settings, {"x": 1}, tmp_path)
    for step in range(1, 6):
        tracker.scalars({"train/loss": 1.0}, step)
    tracker.close(failed=True)
    assert [step for step, _ in told] == [4, 5]
    assert (calls["mode"], calls["resume"], calls["name"]) == ("online", "allow", "mine")
    assert calls["exit_code"] == 1 and calls["config"] == {"x": 1}
    assert calls["settings"]["save_code"] is False


def test_numbers_of_every_kind_of_record():
    evaluation = {
        "step": 0, "kind": "evaluation", "name": "after", "data": "long", "accuracy": 0.5,
        "interval": [0.25, 0.75], "pass_at_k": {"1": 0.5, "2": 0.75}, "note": "text",
    }  # fmt: skip
    assert scalars(evaluation) == {
        "after/long/accuracy": 0.5, "after/long/interval/low": 0.25,
        "after/long/interval/high": 0.75, "after/long/pass_at_k/1": 0.5,
        "after/long/pass_at_k/2": 0.75,
    }  # fmt: skip
    (value,) = scalars({"step": 1, "kind": "train", "loss": "nan"}).values()
    assert value != value


@pytest.mark.parametrize("package", ["tensorboardX", "wandb"])
def test_an_absent_package_is_said_before_any_work(package, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    import importlib

    plain = importlib.import_module
    monkeypatch.setattr(
        importlib,
        "import_module",
        lambda name, *rest: refuse(name) if name == package else plain(name, *rest),
    )
    field = {"tensorboardX": "tracking.tensorboard=True", "wandb": "tracking.wandb='offline'"}
    with pytest.raises(
        ValueError, match=rf"{field[package]} needs the package {package}.*tracking"
    ):
        require(BOTH)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wandb": "on"}, r"tracking\.wandb='on'"),
        ({"wandb": "offline", "project": ""}, r"tracking\.project is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrackingSettings(**{**OFF, **fields})


def test_nothing_is_written_by_default(tmp_path):
    settings = TrackingSettings(**OFF)
    with Trackers(settings, {}, tmp_path, [record(1, 1.0)]) as trackers:
        trackers.log(record(2, 1.0))
    assert list(tmp_path.iterdir()) == []
    assert json.dumps(require(settings)) == "{}"
