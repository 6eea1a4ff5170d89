"""Boundary, breach and root of one solution, in NumPy (MOTAB Eq. 6 to 8)."""

from __future__ import annotations

import numpy as np


def boundaries(entropies_L: np.ndarray, gamma_0: float, alpha: float) -> np.ndarray:
    """gamma = gamma_0 exp(-alpha H) of each step (Eq. 6), in float32; alpha = 0 is static."""
    entropies_L = np.asarray(entropies_L, np.float32)
    return np.float32(gamma_0) * np.exp(np.float32(-alpha) * entropies_L)


def find_breach(values_L: np.ndarray, boundaries_L: np.ndarray) -> tuple[int, int]:
    """The first step with V below its boundary, and its root, as `motab.credit.find_backtrack`.

    Before the first breach every step is safe, so the root is the step with the largest fall of V
    up to the breach, the earliest of equals; a breach at the first step is its own root.

    Returns:
      0-based steps; -1 and -1 where nothing breaches.

    Example:
      >>> import numpy as np
      >>> find_breach(np.array([0.9, 0.5, 0.45, 0.2]), np.full(4, 0.3))
      (3, 1)
    """
    unsafe = np.flatnonzero(values_L < boundaries_L)
    if not unsafe.size:
        return -1, -1
    breach = int(unsafe[0])
    falls = np.diff(values_L[: breach + 1])
    return breach, int(np.argmin(falls)) + 1 if breach else 0


def static_gamma(lowest_R: np.ndarray, count: int) -> float:
    """The static boundary that breaches `count` of the solutions, or as near as equal V allow.

    Args:
      lowest_R: the lowest V of each solution; infinite in one without steps.

    Returns:
      the largest such boundary; it may lie just above 1, which breaches all that have a step.
    """
    ordered = np.sort(np.asarray(lowest_R, np.float32))
    above = np.nextafter(ordered, np.float32(np.inf))
    candidates = np.unique([np.float32(0), *ordered, *above])
    candidates = candidates[np.isfinite(candidates)]
    breached = np.searchsorted(ordered, candidates, side="left")
    off = np.abs(breached - count)
    return float(candidates[np.flatnonzero(off == off.min())[-1]])
