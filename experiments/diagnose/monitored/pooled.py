"""Means over solutions, with intervals over problems.

The solutions of a problem share its difficulty, so a resample draws problems, each with all its
solutions. A mean runs over solutions, and those of a problem that has more of them weigh more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

_RESAMPLES, _SLOW_RESAMPLES = 10_000, 1_000


def pooled(
    values_R: np.ndarray, counts_R: np.ndarray, problem_R: np.ndarray
) -> dict[str, Any] | None:
    """Mean of `values_R` over the rows that count, with a 95 % bootstrap interval over problems.

    Args:
      counts_R: which rows count.
      problem_R: each row's problem.

    Returns:
      `mean`, `low`, `high`, `rollouts` and `problems` that count; None where none does. `low` and
      `high` are None of a single problem.
    """
    counts_R = np.asarray(counts_R, bool)
    sums_P, counts_P = _by_problem(values_R, counts_R, problem_R)
    there = counts_P > 0
    if not there.any():
        return None
    sums_P, counts_P = sums_P[there], counts_P[there]
    low, high = _interval(
        lambda s, c, axis=-1: s.sum(axis=axis) / c.sum(axis=axis), (sums_P, counts_P)
    )
    return {
        "mean": float(sums_P.sum() / counts_P.sum()),
        "low": low,
        "high": high,
        "rollouts": int(counts_R.sum()),
        "problems": int(there.sum()),
    }


def pooled_difference(
    values_R: np.ndarray, one_R: np.ndarray, other_R: np.ndarray, problem_R: np.ndarray
) -> dict[str, Any] | None:
    """Mean of `values_R` over the rows of `one` less that over those of `other`.

    Returns:
      `mean`, `low`, `high`; None where either has no rows. The ends are None where too few problems
      have such rows for every resample to hold some of both.
    """
    one = _by_problem(values_R, np.asarray(one_R, bool), problem_R)
    other = _by_problem(values_R, np.asarray(other_R, bool), problem_R)
    if not one[1].sum() or not other[1].sum():
        return None
    there = one[1] + other[1] > 0
    arrays = tuple(x[there] for x in (*one, *other))

    def statistic(*x: np.ndarray, axis: int = -1) -> np.ndarray:
        a, m, b, n = (y.sum(axis=axis) for y in x)
        return a / m - b / n

    low, high = _interval(statistic, arrays)
    return {"mean": float(statistic(*arrays)), "low": low, "high": high}


def separation(
    scores_R: np.ndarray, wrong_R: np.ndarray, problem_R: np.ndarray
) -> dict[str, Any] | None:
    """Probability that a wrong solution has a lower score than a right one; ties count half.

    Returns:
      `mean`, `low`, `high`, and how many are `wrong` and `right`; None where either has none. .5
      tells nothing.
    """
    scores_R, wrong_R = np.asarray(scores_R), np.asarray(wrong_R, bool)
    if wrong_R.all() or not wrong_R.any():
        return None
    names = np.unique(problem_R)
    rows = [np.flatnonzero(problem_R == name) for name in names]

    def statistic(problems: np.ndarray) -> float:
        drawn = np.concatenate([rows[i] for i in problems.astype(int)])
        ranks, wrong = stats.rankdata(-scores_R[drawn]), wrong_R[drawn]
        m, n = wrong.sum(), (~wrong).sum()
        return (ranks[wrong].sum() - m * (m + 1) / 2) / (m * n)

    places = np.arange(len(names))
    low, high = _interval(statistic, (places,), vectorized=False)
    found = {"mean": float(statistic(places)), "low": low, "high": high}
    return {**found, "wrong": int(wrong_R.sum()), "right": int((~wrong_R).sum())}


def _by_problem(
    values_R: np.ndarray, counts_R: np.ndarray, problem_R: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values = np.where(counts_R, np.asarray(values_R, np.float64), 0.0)
    sums_P = np.bincount(problem_R, values)
    return sums_P, np.bincount(problem_R, counts_R.astype(np.float64))


def _interval(
    statistic: Callable[..., Any], arrays: tuple[np.ndarray, ...], vectorized: bool = True
) -> tuple[float | None, float | None]:
    """Ends of a percentile interval; None where there is nothing to resample."""
    if arrays[0].size < 2:
        return None, None
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        # A resample that holds none of one kind has no value; None then says so.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            arrays,
            statistic,
            paired=True,
            vectorized=vectorized,
            n_resamples=_RESAMPLES if vectorized else _SLOW_RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if np.isfinite([low, high]).all() else (None, None)
