"""What the monitor saw in sampled trajectories: V, breaches, and how far back they were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

V_BINS = 20


def monitor(trajectories: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Histograms over trajectories; None without any.

    Args:
      trajectories: records of trajectories.jsonl with `values`, `breach` and `root`.

    Returns:
      `sampled` and `breached` trajectories. `breach_step` and `depth`, counts by number: the step
      that breached, the first being 1, and the steps from the root to it, 0 where it is the root;
      and their means, None without a breach. `v`: counts of all steps in `V_BINS` equal bins of
      [0, 1]; `v_mean`; and `v_by_step`, the mean of all first steps, all second steps, and so on.
    """
    if not trajectories:
        return None
    breached = [t for t in trajectories if t["breach"] >= 0]
    breach = [t["breach"] + 1 for t in breached]
    depth = [t["breach"] - t["root"] for t in breached]
    by_step: dict[int, list[float]] = {}
    for t in trajectories:
        for step, value in enumerate(map(float, t["values"])):
            if np.isfinite(value):
                by_step.setdefault(step, []).append(value)
    values = [value for step in by_step.values() for value in step]
    counts, _ = np.histogram(values, bins=V_BINS, range=(0.0, 1.0))
    return {
        "sampled": len(trajectories),
        "breached": len(breached),
        "breach_step": np.bincount(breach).tolist() if breach else [],
        "breach_step_mean": float(np.mean(breach)) if breach else None,
        "depth": np.bincount(depth).tolist() if depth else [],
        "depth_mean": float(np.mean(depth)) if depth else None,
        "v": counts.tolist(),
        "v_mean": float(np.mean(values)) if values else None,
        "v_by_step": [float(np.mean(by_step[step])) for step in sorted(by_step)],
    }
