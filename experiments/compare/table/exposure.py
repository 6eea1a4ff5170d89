"""How much of the references an arm's teacher saw, and what the controller made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Measured at every update; what the controller did is read off the last one.
_MEANS = ("exposure", "mismatch", "disagreement")
_LAST = ("beta_a", "beta_b", "decisions_completed", "controller_updates")


def exposure(train: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float | None] | None:
    """Means over runs; None where no run logged an exposure.

    Args:
      train: the records of every update, by run.

    Returns:
      `exposure`, `mismatch` and `disagreement`, over the first and over the last third of the
      updates (`_first`, `_last`); and the controller's numbers after the last update, None where it
      did not learn.
    """
    runs = [records for records in train if records and "exposure" in records[0]]
    if not runs:
        return None
    found: dict[str, float | None] = {}
    for name in _MEANS:
        values_by_run = [np.array([float(x[name]) for x in records]) for records in runs]
        thirds = [(x[: -(-len(x) // 3)], x[len(x) * 2 // 3 :]) for x in values_by_run]
        found[f"{name}_first"] = float(np.mean([first.mean() for first, _ in thirds]))
        found[f"{name}_last"] = float(np.mean([last.mean() for _, last in thirds]))
    for name in _LAST:
        values = [float(r[-1][name]) for r in runs if name in r[-1]]
        found[name] = float(np.mean(values)) if values else None
    return found
