"""Paired comparison of two evaluations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.evaluate.intervals import average_at_n, paired_difference
from experiments.evaluate.paired_comparison import compare
from experiments.paired import main


def records(verdicts, **fields):
    """Records of problems 0, 1, ...: a list of verdicts for each."""
    return [
        {"id": f"p{i}", "source": "exam", "problem": f"{i}?", "answer": "1", "sample": s,
         "right": bool(right), "length": 10 + i, "group": str(i % 2), **fields}
        for i, samples in enumerate(verdicts)
        for s, right in enumerate(samples)
    ]  # fmt: skip


BEFORE = [[0, 0], [0, 1], [1, 1], [0, 0], [1, 0]]
AFTER = [[1, 1], [0, 1], [1, 0], [0, 1], [1, 1]]


def test_the_difference_is_that_of_the_problems():
    result = compare(records(BEFORE), records(AFTER, length=7)[::-1])
    expected = paired_difference(average_at_n(np.array(AFTER)), average_at_n(np.array(BEFORE)))
    assert result["difference"] == pytest.approx(0.3)
    # The order of the records does not matter: problems are those of the first file.
    assert (result["difference"], *result["interval"]) == (
        expected.mean, expected.low, expected.high
    )  # fmt: skip
    assert (result["before"], result["after"]) == (0.4, 0.7)
    assert (result["better"], result["worse"], result["equal"], result["n"]) == (3, 1, 1, 5)
    assert (result["before_length"], result["after_length"]) == (12, 7)
    assert result["groups"]["1"]["difference"] == pytest.approx(0.25)
    assert result["groups"]["0"]["n"] == 3


def test_other_numbers_of_samples_and_problems():
    result = compare(records(BEFORE), records([[1], [1], [1], [0]]))
    assert (result["n"], result["left_out"]) == (4, 1)
    assert result["difference"] == pytest.approx(np.mean([1, 0.5, 0, 0]))
    with pytest.raises(ValueError, match="no problem in common"):
        compare(records(BEFORE), records(AFTER, source="other"))
    with pytest.raises(ValueError, match="Problem p0 of exam has another answer"):
        compare(records(BEFORE), records(AFTER, answer="2"))


def test_the_command(tmp_path, capsys):
    for name, verdicts in (("before", BEFORE), ("after", AFTER)):
        (tmp_path / name).mkdir()
        lines = "".join(json.dumps(r) + "\n" for r in records(verdicts))
        (tmp_path / name / "samples.jsonl").write_text(lines)
    flags = ["--before", str(tmp_path / "before"), "--after", str(tmp_path / "after/samples.jsonl")]
    assert main([*flags, "--out", str(tmp_path / "out.json")]) == 0
    assert "+30.0" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["better"] == 3
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    for path, message in (
        ("absent", r"holds no samples.jsonl"),
        ("bad.jsonl", "line 1: no graded"),
    ):
        assert main(["--before", str(tmp_path / path), "--after", str(tmp_path / "after")]) == 1
        assert message in capsys.readouterr().err
