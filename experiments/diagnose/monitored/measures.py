r"""What scored solutions show of values, breaches, roots and boundaries: monitor.json.

problems, rollouts, left_out   counts; left out are lines behind the first unfinished problem
accuracy, truncated            POINT
tokens, steps                  POINT, of a solution
values     {"mean": POINT over solutions' mean V, "quartiles", "histogram": counts in 20 bins
           of [0, 1], "steps": how many, "positions": bins of the relative step position
           (l + 1/2) / L, each the mean over problems of a problem's mean V there}
entropies  {"quartiles"} in nats, at the starts of steps
breaches   one for each gamma_0 of the grid: {"gamma_0", "adaptive": BREACH, "static": BREACH
           with "gamma", "both": solutions that breach under both, "wrong_difference": of
           `wrong_breached`, adaptive less static}
shown      BREACH at the gamma_0 that was asked for
separation {"adaptive", "static", "mean"}: the probability that a wrong solution scores lower
           than a right one, by the lowest V exp(alpha H), the lowest V, and the mean V

BREACH     {"breached": count, "share": POINT, "step", "relative_step", "depth", "own_root":
           POINT over breached solutions, "steps", "depths": counts by 0-based step and by
           depth, "wrong_breached", "wrong_others": shares of wrong answers among solutions
           that breach and that do not, "breached_wrong", "breached_right": shares of breached
           ones among wrong and right solutions}
POINT      {"mean", "low", "high", "rollouts", "problems"}, as `pooled` gives it, or null
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.diagnose.monitored.breaches import static_gamma
from experiments.diagnose.monitored.pooled import pooled, pooled_difference, separation
from experiments.diagnose.monitored.reading import Solutions
from experiments.diagnose.monitored.settings import FigureSettings
from experiments.diagnose.position_curves import PositionCurve

_HISTOGRAM = 20


def measure(solutions: Solutions, settings: FigureSettings) -> dict[str, Any]:
    """What monitor.json holds, without settings and environment.

    Raises:
      ValueError: no solution has a step.
    """
    of = solutions.all
    problem_R, wrong_R = solutions.problem_R, solutions.wrong_R
    every = np.ones(len(of), bool)
    values = np.concatenate([x.values_L for x in of])
    if not values.size:
        raise ValueError("No solution has a step: all of them are empty.")
    steps_R = np.array([len(x.values_L) for x in of])

    def mean(x: Any) -> dict[str, Any] | None:
        return pooled(np.array(x), every, problem_R)

    means_R = np.array([x.values_L.mean() if len(x.values_L) else 1.0 for x in of])
    lowest_R = np.array([x.values_L.min(initial=np.inf) for x in of], np.float32)
    tightest_R = [
        (x.values_L * np.exp(settings.alpha * x.entropies_L)).min(initial=np.inf) for x in of
    ]
    some_R = steps_R > 0
    scores = {"adaptive": np.array(tightest_R), "static": lowest_R, "mean": means_R}
    return {
        "problems": len(np.unique(problem_R)),
        "rollouts": len(of),
        "left_out": solutions.left_out,
        "accuracy": mean(~wrong_R),
        "truncated": mean([x.line["truncated"] for x in of]),
        "tokens": mean([len(x.line["token_ids"]) for x in of]),
        "steps": mean(steps_R),
        "values": {
            "mean": pooled(means_R, some_R, problem_R),
            "quartiles": np.quantile(values, [0.25, 0.5, 0.75]).tolist(),
            "histogram": np.histogram(values, _HISTOGRAM, (0, 1))[0].tolist(),
            "steps": int(values.size),
            "positions": _positions(solutions, settings.bins),
        },
        "entropies": {
            "quartiles": np.quantile(
                np.concatenate([x.entropies_L for x in of]), [0.25, 0.5, 0.75]
            ).tolist()
        },
        "breaches": [_compare(solutions, gamma, settings, lowest_R) for gamma in settings.grid],
        "shown": breach_measures(solutions, settings.gamma_0, settings.alpha),
        "separation": {
            name: separation(x[some_R], wrong_R[some_R], problem_R[some_R])
            for name, x in scores.items()
        },
    }


def breach_measures(solutions: Solutions, gamma_0: float, alpha: float) -> dict[str, Any]:
    """A BREACH: how many breach, where, how deep, and which of them are wrong."""
    breach_R, root_R = solutions.breaches(gamma_0, alpha)
    problem_R, wrong_R, breached_R = solutions.problem_R, solutions.wrong_R, breach_R >= 0
    steps_R = np.array([max(len(x.values_L), 1) for x in solutions.all])
    depth_R = breach_R - root_R

    def among(x: np.ndarray, rows_R: np.ndarray) -> dict[str, Any] | None:
        return pooled(x, rows_R, problem_R)

    return {
        "breached": int(breached_R.sum()),
        "share": among(breached_R, np.ones_like(breached_R)),
        "step": among(breach_R, breached_R),
        "relative_step": among((breach_R + 0.5) / steps_R, breached_R),
        "depth": among(depth_R, breached_R),
        "own_root": among(depth_R == 0, breached_R),
        "steps": np.bincount(breach_R[breached_R]).tolist(),
        "depths": np.bincount(depth_R[breached_R]).tolist(),
        "wrong_breached": among(wrong_R, breached_R),
        "wrong_others": among(wrong_R, ~breached_R),
        "breached_wrong": among(breached_R, wrong_R),
        "breached_right": among(breached_R, ~wrong_R),
    }


def _compare(
    solutions: Solutions, gamma_0: float, settings: FigureSettings, lowest_R: np.ndarray
) -> dict[str, Any]:
    """Adaptive and static boundary at the same share of breached solutions."""
    adaptive_R = solutions.breaches(gamma_0, settings.alpha)[0] >= 0
    gamma = static_gamma(lowest_R, int(adaptive_R.sum()))
    static_R = solutions.breaches(gamma, 0.0)[0] >= 0
    difference = pooled_difference(solutions.wrong_R, adaptive_R, static_R, solutions.problem_R)
    return {
        "gamma_0": gamma_0,
        "adaptive": breach_measures(solutions, gamma_0, settings.alpha),
        "static": {"gamma": gamma, **breach_measures(solutions, gamma, 0.0)},
        "both": int((adaptive_R & static_R).sum()),
        "wrong_difference": difference,
    }


def _positions(solutions: Solutions, bins: int) -> list[dict[str, Any]]:
    """V by relative step position."""
    curve = PositionCurve(int(solutions.problem_R.max()) + 1, bins, 1)
    for x in solutions.all:
        if not (steps := len(x.values_L)):
            continue
        place = (np.arange(steps) + 0.5) / steps * bins
        hot = np.arange(bins) == place.astype(int)[:, None]
        values = np.where(hot, x.values_L[:, None], 0.0)
        curve.add(np.full(steps, x.problem), values, hot)
    found = []
    for point in curve.summary(1)["bins"]:
        start, end = point.pop("start") / bins, point.pop("end") / bins
        point["steps"] = point.pop("tokens")
        found.append({"start": start, "end": end, **point})
    return found
