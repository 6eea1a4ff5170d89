"""Bins and intervals of curves over positions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.diagnose.position_curves import PositionCurve
from experiments.evaluate.intervals import bootstrap


def test_bins_and_intervals_by_hand():
    curve = PositionCurve(problems=3, length=5, bin=2)
    lengths = np.array([5, 1, 3, 0])
    values = np.arange(20.0).reshape(4, 5)
    valid = np.arange(5) < lengths[:, None]
    values[~valid] = np.nan  # what does not count has no influence
    # Problem 0 has two samples, given in different batches; problem 2's has no token.
    for rows in ([0, 2], [1, 3]):
        curve.add(np.array([0, 0, 1, 2])[rows], values[rows], valid[rows])
    summary = curve.summary(min_problems=2)
    # Tokens by problem and bin: 0: {0, 1, 5}, {2, 3}, {4}; 1: {10, 11}, {12}.
    means = [[2.0, 10.5], [2.5, 12.0]]
    assert [(b["start"], b["end"]) for b in summary["bins"]] == [(0, 2), (2, 4)]
    assert [(b["problems"], b["tokens"]) for b in summary["bins"]] == [(2, 5), (2, 3)]
    for point, by_problem in zip(summary["bins"], means, strict=True):
        expected = bootstrap(np.array(by_problem))
        assert point["mean"] == pytest.approx(np.mean(by_problem))
        assert (point["low"], point["high"]) == (expected.low, expected.high)
        # Of two problems drawn twice, a quarter of the draws takes the same one both times.
        assert (point["low"], point["high"]) == pytest.approx(tuple(by_problem))
    assert summary["left_out"] == 1
    assert summary["overall"]["mean"] == pytest.approx((15 / 6 + 33 / 3) / 2)
    assert (summary["overall"]["problems"], summary["overall"]["tokens"]) == (2, 9)
    whole = curve.summary(min_problems=1)
    assert whole["left_out"] == 0
    last = whole["bins"][-1]
    assert (last["start"], last["end"], last["mean"], last["problems"]) == (4, 5, 4.0, 1)


def test_the_order_of_rows_does_not_matter():
    random = np.random.default_rng(0)
    values, valid = random.normal(size=(12, 9)), random.random((12, 9)) < 0.7
    problems = np.repeat(np.arange(4), 3)
    summaries = []
    for size in (12, 5, 1):
        curve = PositionCurve(problems=4, length=9, bin=4)
        for start in range(0, 12, size):
            batch = slice(start, start + size)
            curve.add(problems[batch], values[batch], valid[batch])
        summaries.append(curve.summary(2))
    for other in summaries[1:]:
        for a, b in zip(summaries[0]["bins"], other["bins"], strict=True):
            assert a == pytest.approx(b)


def test_a_curve_without_tokens():
    assert PositionCurve(2, 4, 2).summary(2) == {"overall": None, "bins": [], "left_out": 0}
