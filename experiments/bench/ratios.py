"""Medians and ratios of repetitions, with their spread."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median, and the smallest and largest value."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    """Of any values, at least one."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """How many times `above` is `below`, round by round: a drift of the machine cancels.

    Where one took fewer repetitions than the other, their medians are all there is.
    """
    if len(above) == len(below):
        return spread([a / b for a, b in zip(above, below, strict=True)])
    return spread([statistics.median(above) / statistics.median(below)])


def number(x: float) -> str:
    """Three digits that count, without an exponent."""
    digits = 0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3
    return f"{x:.{digits}f}"
