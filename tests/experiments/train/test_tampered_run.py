"""A run whose files were lost, edited or mixed between two starts: the same end, or a clear refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.train.loop import run
from experiments.workdir.workdir import read_log

from .test_run import same_params, small

STEPS = 4
# What a run measures of the clock and the checkout.
CLOCK = (
    "seconds",
    "wall_seconds",
    "compile_seconds",
    "train_seconds",
    "incomplete_logs",
    "commit",
    "dirty",
)


def config(**fields):
    made = small(steps=STEPS)
    made.data.long.name = ""
    made.evaluation.max_tokens = 48
    made.synthesis.sync_every = 1
    made.unlock()
    for name, value in fields.items():
        made[name] = value
    return made


def timeless(value):
    """Results without what the clock and the checkout say."""
    if isinstance(value, dict):
        return {name: timeless(x) for name, x in value.items() if name not in CLOCK}
    return value


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and its results."""
    workdir = tmp_path_factory.mktemp("tampered") / "whole"
    return workdir, run(config(), workdir)


@pytest.fixture
def stopped(whole, tmp_path):
    """The same, killed after its third step: checkpoint 2, and lines of a step beyond it."""
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    for name in ("results.json", "report.png", "samples/after-test.jsonl"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "checkpoints" / "4")
    lines = (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 3]
    (workdir / "metrics.jsonl").write_bytes(b"".join(kept))
    return workdir


def ends_as(whole, workdir: Path) -> bool:
    results = run(config(), workdir)
    assert timeless(results) == timeless(whole[1])
    assert same_params(workdir, whole[0])
    assert (workdir / "report.png").exists()
    return True


def _lines(workdir: Path) -> list[bytes]:
    return (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)


def _write(workdir: Path, lines: list[bytes]) -> None:
    (workdir / "metrics.jsonl").write_bytes(b"".join(lines))


@pytest.mark.slow
def test_a_lost_log_changes_no_result(whole, stopped, caplog):
    (stopped / "metrics.jsonl").unlink()
    (stopped / "samples" / "before-test.jsonl").unlink()
    assert ends_as(whole, stopped)
    assert "metrics.jsonl lacks the updates of steps 1 to 2 up to step 2" in caplog.text
    results = json.loads((stopped / "results.json").read_text())
    assert results["before"] is not None
    assert results["incomplete_logs"] == [
        "metrics.jsonl lacks the updates of steps 1 to 2 up to step 2",
        "samples/before-test.jsonl is missing",
    ]


@pytest.mark.slow
def test_an_edited_log_changes_no_result(whole, stopped, caplog):
    def edit(line: bytes) -> bytes:
        record = json.loads(line)
        if record["kind"] == "train":
            record["loss_tokens"] *= 10
        if record["kind"] == "evaluation":
            record["accuracy"] = 1.0
        return json.dumps(record).encode() + b"\n"

    lines = [edit(line) for line in _lines(stopped)]
    _write(stopped, [*lines[::-1], lines[0], b'{"step": 1, "kind": "train", "loss": [null]}\n'])
    assert ends_as(whole, stopped)
    assert "metrics.jsonl is not what was written up to step 2" in caplog.text


@pytest.mark.slow
def test_another_seeds_files_do_not_mix_in(whole, stopped, tmp_path):
    other = tmp_path / "other"
    run(config(seed=1, steps=2), other)
    shutil.rmtree(stopped / "checkpoints" / "2")
    shutil.copytree(other / "checkpoints" / "2", stopped / "checkpoints" / "2")
    before = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoints/2 was written by a run of another config"):
        run(config(), stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before
    shutil.copy(other / "results.json", stopped)
    with pytest.raises(ValueError, match=r"results\.json is of another run: it says seed=1"):
        run(config(), stopped)


def test_a_renamed_checkpoint_is_put_aside(whole, stopped, caplog):
    (stopped / "checkpoints" / "2").rename(stopped / "checkpoints" / "4")
    assert ends_as(whole, stopped)
    assert "holds the checkpoint of step 2: it was renamed or swapped" in caplog.text
    assert (stopped / "checkpoints" / "4.corrupt").is_dir()
    assert "incomplete_logs" not in json.loads((stopped / "results.json").read_text())


def test_killed_between_results_and_report(whole, tmp_path):
    """And in the last evaluation: what it measured is logged once."""
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    (workdir / "report.png").unlink()
    (workdir / "metrics.jsonl").unlink()
    assert timeless(run(config(), workdir)) == timeless(whole[1])
    assert (workdir / "report.png").exists()
    shutil.copy(whole[0] / "metrics.jsonl", workdir)
    (workdir / "results.json").unlink()
    assert ends_as(whole, workdir)
    names = [r["name"] for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "evaluation"]
    assert names == ["before", "teacher", "after"]


@pytest.mark.slow
def test_what_changes_speed_may_change(whole, stopped, capsys):
    changed = config()
    changed.evaluation.batch_size = 8
    changed.student.remat = "full"
    changed.samples.every = 0
    changed.checkpoint.every = 1
    results = run(changed, stopped)
    assert timeless(results)["after"] == timeless(whole[1])["after"]
    said = capsys.readouterr().out
    assert 'Resuming with another student.remat: "dots" before, "full" now.' in said
    assert "evaluation.batch_size: 16 before, 8 now" in said
    assert json.loads((stopped / "config.json").read_text())["student"]["remat"] == "full"


@pytest.mark.slow
def test_more_steps_where_the_rate_is_constant(tmp_path):
    def constant(steps: int):
        made = config(steps=steps)
        made.optimizer.schedule = "constant"
        made.data.validation.name = ""
        made.data.test.size = 4
        return made

    run(constant(2), tmp_path / "run")
    results = run(constant(3), tmp_path / "run")
    assert results["steps"] == 3
    assert [
        r["step"] for r in read_log(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"
    ] == [1, 2, 3]
    assert (tmp_path / "run" / "results-2.json").exists()
    run(constant(3), tmp_path / "straight")
    assert same_params(tmp_path / "run", tmp_path / "straight")
    with pytest.raises(ValueError, match=r"steps: 3 in the workdir, 2 now \(there may be more"):
        run(constant(2), tmp_path / "run")
    cosine = constant(4)
    cosine.optimizer.schedule = "cosine"
    with pytest.raises(ValueError, match=r"steps: 3 in the workdir, 4 now \(more steps are"):
        run(cosine, tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("student.path", "/nowhere", "/nowhere"), ("mesh.data", 3, "does not fill")],
)
def test_a_failed_start_leaves_nothing(field, value, message, tmp_path):
    bad = config()
    section, name = field.split(".")
    bad[section][name] = value
    with pytest.raises((OSError, ValueError), match=message):
        run(bad, tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", r"results\.json must be an object, and is a list"),
        (b"null", r"results\.json must be an object, and is null"),
        (b"", r"results\.json is not JSON"),
        (b"\xff\xfe\x00", r"results\.json is not JSON"),
        (b"[" * 100_000, r"results\.json is not JSON: nested too deeply"),
        (b'{"before": NaN}', r"results\.json is not JSON: NaN"),
        (b'{"before": [1]}', r"results\.json: before must be an object, and is a list"),
        (b'{"after": {"accuracy": "high"}}', r"results\.json: after\.accuracy='high' must be"),
        (b'{"after": {}}', r"results\.json: after\.accuracy is missing"),
        (b'{"long": 3}', r"results\.json: long must be an object"),
        (b'{"synthesis": {"tokens": null}}', r"results\.json: synthesis\.tokens must be an obj"),
    ],
)
def test_damaged_results_are_named(whole, tmp_path, content, message):
    workdir = tmp_path / "run"
    workdir.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(whole[0] / name, workdir)
    (workdir / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run(config(), workdir)
