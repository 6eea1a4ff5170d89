"""Statistics of graded samples: averages, pass@k, majority votes and bootstrap intervals.

Throughout, problems are the unit that was sampled: the samples of one problem share its difficulty,
so that treating them as independent would make intervals too narrow.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

# Rows of resampled indices held at a time, in numbers: 64 MiB of int64.
_CHUNK = 8_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with the ends of its percentile interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values_P: np.ndarray, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean of one value per problem, with a percentile bootstrap interval over problems.

    Args:
      values_P: one value per problem, such as its share of right samples.
      seed: of the resampling.
      resamples: how often P problems are drawn with replacement.
      level: probability that the interval covers.

    Raises:
      ValueError: there are no problems.
    """
    values_P = np.asarray(values_P, np.float64)
    if values_P.ndim != 1 or not values_P.size:
        raise ValueError(
            f"bootstrap needs one value for each of at least one problem, not {values_P.shape}."
        )
    return _resampled([values_P], seed, resamples, level)


def mean_of_sets(
    sets: Sequence[np.ndarray], *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean of the means of several sets of problems, each set counting alike, with its interval.

    Every set is resampled by itself: which benchmarks there are is given.

    Args:
      sets: of each set, a value per problem.

    Raises:
      ValueError: there are no sets, or a set has no problems.
    """
    if not sets or not all(np.size(values) for values in sets):
        raise ValueError("mean_of_sets needs at least one set, and a problem in each.")
    return _resampled([np.asarray(x, np.float64) for x in sets], seed, resamples, level)


def _resampled(sets: Sequence[np.ndarray], seed: int, resamples: int, level: float) -> Interval:
    """The mean of the means of sets, each resampled by itself."""
    middle = float(np.mean([x.mean() for x in sets]))
    if all(x.size == 1 for x in sets):
        return Interval(middle, middle, middle)
    # SciPy resamples two values or more; of a set with one value there is nothing to draw.
    spread = [x for x in sets if x.size > 1]
    rest = sum(float(x[0]) for x in sets if x.size == 1)

    def statistic(*sets_: np.ndarray, axis: int = -1) -> np.ndarray:
        return (sum(x.mean(axis=axis) for x in sets_) + rest) / len(sets)

    found = stats.bootstrap(
        spread,
        statistic,
        n_resamples=resamples,
        batch=max(1, _CHUNK // sum(x.size for x in spread)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(middle, float(found.low), float(found.high))


def paired_difference(
    after_P: np.ndarray, before_P: np.ndarray, *, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean difference of two results on the same problems, with a 95 % bootstrap interval.

    Raises:
      ValueError: the two differ in their number of problems.
    """
    after_P, before_P = np.asarray(after_P, np.float64), np.asarray(before_P, np.float64)
    if after_P.shape != before_P.shape:
        raise ValueError(
            "Paired results must be on the same problems: "
            f"{after_P.shape} against {before_P.shape}."
        )
    return bootstrap(after_P - before_P, seed=seed, resamples=resamples)


def crossed_bootstrap(
    values_SxP: np.ndarray, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean over training seeds and problems, both resampled, with a percentile interval.

    Every seed meets the same problems, so a resample draws problems with replacement and,
    independently, seeds, and takes the mean over all drawn pairs (Owen, 2007). Of S seeds S - 1
    are drawn: drawing S would understate the variance between seeds by the factor (S - 1) / S,
    a half for two seeds. With S = 1 nothing is known about seeds, and the interval is over
    problems.

    The noise of single answers is counted more than once, which makes intervals too wide rather
    than too narrow. For a paired difference pass the difference of two matrices.

    Args:
      values_SxP: a value per seed and problem, such as the problem's share of right samples.
      seed: of the resampling.
      resamples: how often seeds and problems are drawn.
      level: probability that the interval covers.

    Raises:
      ValueError: there are no seeds or no problems.
    """
    values_SxP = np.asarray(values_SxP, np.float64)
    if values_SxP.ndim != 2 or not values_SxP.size:
        raise ValueError(
            "crossed_bootstrap needs a value for each of at least one seed and one problem, not "
            f"{values_SxP.shape}."
        )
    seeds, problems = values_SxP.shape
    rng = np.random.default_rng(seed)
    draws = max(seeds - 1, 1)
    shares_RxS = rng.multinomial(draws, [1 / seeds] * seeds, size=resamples) / draws
    rows = max(1, _CHUNK // problems)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        by_problem = shares_RxS[start : start + rows] @ values_SxP
        drawn = rng.integers(problems, size=by_problem.shape)
        means[start : start + rows] = np.take_along_axis(by_problem, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values_SxP.mean()), float(low), float(high))


def average_at_n(right_PxN: np.ndarray) -> np.ndarray:
    """Share of right samples, per problem [P]."""
    return np.asarray(right_PxN, np.float64).mean(axis=1)


def pass_at_k(right_PxN: np.ndarray, k: int) -> np.ndarray:
    """Unbiased estimate, per problem [P], that one of k samples is right: 1 - C(n-c, k) / C(n, k).

    The quotient is taken factor by factor, so that no binomial is ever formed (Chen et al., 2021).

    Raises:
      ValueError: k is not in 1..n.
    """
    right_PxN = np.asarray(right_PxN, bool)
    n = right_PxN.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= n = {n} samples per problem.")
    wrong_P = n - right_PxN.sum(axis=1)
    drawn = np.arange(k)
    factors_PxK = np.maximum(wrong_P[:, None] - drawn, 0) / (n - drawn)
    return 1.0 - factors_PxK.prod(axis=1)


def majority_at_n(answers: Sequence[Sequence[str | None]], right_PxN: np.ndarray) -> np.ndarray:
    """Whether each problem's most frequent answer is right [P].

    Args:
      answers: for each problem its n final answers; None where a sample has none and abstains.
      right_PxN: verdicts on the same samples.

    Answers vote together if they are the same text but for spaces. A tie goes to the answer given
    first; where all abstain, the vote is wrong.
    """
    verdicts = []
    for texts, right in zip(answers, np.asarray(right_PxN, bool), strict=True):
        votes: collections.Counter[str] = collections.Counter()
        verdict: dict[str, bool] = {}
        for text, is_right in zip(texts, right, strict=True):
            if text is not None:
                key = "".join(text.split())
                votes[key] += 1
                verdict.setdefault(key, bool(is_right))
        # most_common keeps the order of first appearance among equals.
        verdicts.append(bool(votes) and verdict[votes.most_common(1)[0][0]])
    return np.array(verdicts, bool)
