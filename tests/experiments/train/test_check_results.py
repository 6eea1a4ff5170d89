"""What CI accepts as the remains of a good run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.machine.environment import environment
from experiments.workdir import workdir

SCRIPT = Path(workdir.__file__).resolve().parent.parent.parent / ".ci" / "check_results.py"
SCORE = {
    "accuracy": 0.4,
    "interval": [0.3, 0.5],
    "n": 64,
    "mean_length": 70.5,
    "truncation_rate": 0,
}

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs a checkout")


def finished_run(path, **changes):
    """A workdir as a run leaves it."""
    with workdir.Workdir(path, {"seed": 0}) as run:
        run.append_metrics({"step": 1, "kind": "train", "loss": float("nan")})
        run.append_trajectories([{"step": 1, "id": 0}])
        (run.checkpoints / "10").mkdir(parents=True)
        (path / "report.png").write_bytes(b"png")
        after = {**SCORE, "accuracy": 0.55, "interval": [0.5, 0.6]}
        scores = {"before": SCORE, "after": after, "teacher": SCORE}
        run.write_results({**scores, "seed": 0, **environment(), "wall_seconds": 400.0, **changes})
    return path


def check(path, *flags):
    return subprocess.run(
        [sys.executable, SCRIPT, path, *flags], capture_output=True, text=True, check=False
    )


def test_a_good_run_passes(tmp_path):
    found = check(finished_run(tmp_path), "--min-gain", "0.1", "--seconds", "360")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "after    0.550 [0.500, 0.600] of 64" in found.stdout
    assert "SLOW: more than the 360 s" in found.stdout


def test_a_student_that_teaches_itself_has_no_teacher(tmp_path):
    found = check(finished_run(tmp_path, teacher=None))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "teacher" not in found.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": {**SCORE, "accuracy": 0.6}}, "before: accuracy 0.6 and interval"),
        ({"after": {**SCORE, "accuracy": float("nan")}}, "results.json, after: TypeError"),
        ({"after": {**SCORE, "n": 0}}, "after: n is 0"),
        ({"after": None}, "results.json, after"),
        ({"teacher": {"accuracy": 0.9}}, "results.json, teacher: KeyError('interval')"),
        ({"commit": None}, "results.json has no commit"),
        ({"after": SCORE}, "the student gained 0.000, less than 0.1"),
    ],
)
def test_bad_results_are_named(tmp_path, changes, message):
    found = check(finished_run(tmp_path, **changes), "--min-gain", "0.1")
    assert found.returncode == 1
    assert f"WRONG: {message}" in found.stdout


def test_bad_files_are_named(tmp_path):
    finished_run(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "loss": NaN}\n{"st')
    (tmp_path / "report.png").unlink()
    (tmp_path / "checkpoints" / "10").rmdir()
    results = json.loads((tmp_path / "results.json").read_text())
    del results["before"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = check(tmp_path).stdout
    for message in ("report.png is missing", "metrics.jsonl, line 2", "metrics.jsonl, line 3"):
        assert message in found
    assert "there is no checkpoint" in found
    assert "before: KeyError('before')" in found
