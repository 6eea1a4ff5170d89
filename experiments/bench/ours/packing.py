"""First fit decreasing on log-normal lengths: the share of positions that hold a token."""

from __future__ import annotations

import numpy as np

from distill.train.packing import first_fit_decreasing
from experiments.bench.peers.bench_protocol import Session

WIDTH = 2048
TRAJECTORIES = 2048
MEDIAN = 256
# 1.645 standard deviations of log length lie between median and 95th percentile.
SIGMA = np.log(5) / 1.645


def measure(session: Session) -> None:
    """Times the search, too."""
    draw = np.random.default_rng(session.request["seed"])
    lengths = MEDIAN * np.exp(SIGMA * draw.standard_normal(TRAJECTORIES))
    lengths = np.clip(np.round(lengths), 1, WIDTH).astype(int)
    session.measure(lambda: first_fit_decreasing(lengths.tolist(), WIDTH))
    rows = first_fit_decreasing(lengths.tolist(), WIDTH)
    used = float(lengths.sum() / (len(rows) * WIDTH))
    session.facts |= {"used": used, "rows": len(rows), "tokens": int(lengths.sum())}
    unpacked = float(lengths.sum() / (TRAJECTORIES * lengths.max()))
    session.facts["used_unpacked"] = unpacked
