"""Which learning rate an arm runs with, and how a checkpoint scored on validation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.compare.arms import Plan, selection_directory
from experiments.workdir.workdir import METRICS, read_log


@dataclasses.dataclass(frozen=True)
class Choice:
    """A learning rate, and why.

    Attributes:
      rate: the chosen one.
      accuracies: on validation, by rate; empty where there was nothing to choose from.
      at_end: whether it is the lowest or highest of more than two, so that a better one may lie
        beyond.
    """

    rate: float
    accuracies: dict[float, float]
    at_end: bool


def choose(plan: Plan, workdir: Path, arm: str) -> Choice:
    """The rate with the highest accuracy on validation; among equals the lowest.

    Raises:
      ValueError: a run has not been validated.
    """
    if len(plan.rates) == 1:
        return Choice(plan.rates[0], {}, False)
    scores = {
        rate: validation_accuracy(selection_directory(workdir, arm, rate), plan.best)
        for rate in plan.rates
    }
    rate = min(scores, key=lambda r: (-scores[r], r))
    at_end = len(scores) > 2 and rate in (min(scores), max(scores))
    return Choice(rate, scores, at_end)


def validation_accuracy(directory: Path, best: bool) -> float:
    """Of a run's final checkpoint, or of its best.

    Raises:
      ValueError: it has not been validated.
    """
    records = [r for r in read_log(directory / METRICS) if r["kind"] == "validation"]
    if not records:
        raise ValueError(f"{directory} was never validated: set data.validation.name.")
    accuracies = [float(r["accuracy"]) for r in sorted(records, key=lambda r: r["step"])]
    return max(accuracies) if best else accuracies[-1]
