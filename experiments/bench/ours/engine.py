"""The slot engine against static batches, as `experiments.bench_engine` measures them."""

from __future__ import annotations

from experiments.bench.peers.bench_protocol import Session


def measure(session: Session) -> None:
    """See `experiments.bench_engine.measure`."""
    raise NotImplementedError("experiments.bench_engine is not there yet.")
