"""Means of a per-token quantity by bins of response positions, with intervals over problems."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.evaluate.intervals import bootstrap


class PositionCurve:
    """Gathers one quantity, token by token, and averages it by problem and bin.

    Args:
      problems: how many there are.
      length: positions in a response, at most.
      bin: positions per bin; the last may be narrower.
    """

    def __init__(self, problems: int, length: int, bin: int):
        self._length, self._bin = length, bin
        bins = -(-length // bin)
        self._sums_ExK = np.zeros((problems, bins))
        self._counts_ExK = np.zeros((problems, bins), np.int64)

    def add(self, problem_R: np.ndarray, values_RxN: np.ndarray, valid_RxN: np.ndarray) -> None:
        """Adds rows of tokens: the problem of each row, its values, and which of them count."""
        rows, length = values_RxN.shape
        padding = ((0, 0), (0, self._counts_ExK.shape[1] * self._bin - length))
        values = np.where(valid_RxN, values_RxN, 0).astype(np.float64)
        for total, new in ((self._sums_ExK, values), (self._counts_ExK, valid_RxN)):
            binned = np.pad(new, padding).reshape(rows, -1, self._bin).sum(axis=-1)
            np.add.at(total, problem_R, binned)

    def summary(self, min_problems: int) -> dict[str, Any]:
        """The curve as JSON: `overall`, `bins` and `left_out`, as `experiments.diagnose` says.

        A problem is one value per bin, the mean of its tokens there, whatever their number.
        """
        bins, left_out = [], 0
        for k in range(self._counts_ExK.shape[1]):
            start = k * self._bin
            point = _point(self._sums_ExK[:, k], self._counts_ExK[:, k])
            if point and point["problems"] >= min_problems:
                end = min(start + self._bin, self._length)
                bins.append({"start": start, "end": end, **point})
            elif point:
                left_out += 1
        overall = _point(self._sums_ExK.sum(axis=1), self._counts_ExK.sum(axis=1))
        return {"overall": overall, "bins": bins, "left_out": left_out}


def _point(sums_E: np.ndarray, counts_E: np.ndarray) -> dict[str, Any] | None:
    there = counts_E > 0
    if not there.any():
        return None
    interval = bootstrap(sums_E[there] / counts_E[there])
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "problems": int(there.sum()),
        "tokens": int(counts_E.sum()),
    }
