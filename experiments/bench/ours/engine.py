"""Slots against static batches, as `experiments.bench_engine` measures them."""

from __future__ import annotations

from typing import Any

import models
from experiments.bench import engine as bench_engine
from experiments.bench.peers.bench_protocol import Session


def measure(session: Session) -> None:
    """Every repetition is one `bench_engine.measure`, which leaves compilation out by itself."""
    config = models.load_config(session.request["student"])
    shape = session.request["engine"]
    measured: list[dict[str, Any]] = []

    def once() -> dict[str, Any]:
        return bench_engine.measure(config=config.replace(dtype=session.request["dtype"]), **shape)

    session.ready(0.0)
    while session.wait():
        measured.append(once())
        session.report(measured[-1]["tokens"] / measured[-1]["tokens_per_second"])
    session.facts |= {name: [m[name] for m in measured] for name in ("occupancy", "speedup")}
    last = measured[-1] if measured else {}
    for name in ("tokens", "p50", "p95", "static_occupancy", "equal", "recompiled"):
        if name in last:
            session.facts[name] = last[name]
