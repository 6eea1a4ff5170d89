"""What an arm's windows said, and how many of them it was guided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Measured at every update; an arm that guides nothing lacks some.
_THIRDS = ("distance", "low_distance", "high", "trajectory")
_MEANS = ("windows", "capped", "gradient_ratio")


def windows(train: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float | None] | None:
    """Means over runs; None where no run opened windows.

    Args:
      train: the records of every update, by run.

    Returns:
      `distance` (D_OT at candidates), `low_distance`, `high` (share of the windows above the
      threshold) and `trajectory` (L_traj, nats), over the first and over the last third of the
      updates (`_first`, `_last`); `windows`, `capped` and `gradient_ratio` over all, the last from
      where it was first measured. None for what was not logged, or not measured.
    """
    runs = [records for records in train if records and "windows" in records[0]]
    if not runs:
        return None
    found: dict[str, float | None] = {}
    for name in (*_THIRDS, *_MEANS):
        values = [np.array([float(x[name]) for x in r]) for r in runs if name in r[0]]
        if name == "gradient_ratio":  # 0 until it is measured
            values = [x[x > 0] for x in values if np.any(x > 0)]
        ends = {"": values}
        if name in _THIRDS:
            first = [x[: -(-len(x) // 3)] for x in values]
            ends = {"_first": first, "_last": [x[len(x) * 2 // 3 :] for x in values]}
        for end, parts in ends.items():
            found[name + end] = float(np.mean([x.mean() for x in parts])) if parts else None
    return found
