"""What ATESD's controller costs: `python -m experiments.bench_exposure [--rounds 12]`.

Whole steps (rollout, references, update) of `configs/atesd.py` and of `configs/opsd.py`, in turns, in
one process and on the same batches; medians over rounds of `hold` steps, so that every round has one
decision and one probe. OPSD runs without a probe and has no reward to measure: the difference is the
controller and all that it observes.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

from configs import atesd, opsd
from experiments.methods.atesd import AtesdRecipe
from experiments.methods.online import Online
from experiments.pair import load_pair, start_student
from experiments.workdir import environment


class _Peer:
    """One method, stepping through its own copy of the batches."""

    def __init__(self, config: Any):
        pair = load_pair(config)
        self.method = Online(config, pair, AtesdRecipe(config, pair))
        self.state = self.method.init(start_student(pair, config))
        self.done = 0

    def steps(self, count: int) -> float:
        """Seconds of `count` steps."""
        started = time.perf_counter()
        for _ in range(count):
            outcome = self.method.step(self.state, next(self.method.batches), self.done)
            self.state, self.done = outcome.state, self.done + 1
        jax.block_until_ready(self.state.params)
        return time.perf_counter() - started


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds per step of every round, by method."""
    configs = {"atesd": atesd.get_config(), "opsd": opsd.get_config()}
    configs["opsd"].exposure.probe_size = 0
    for config in configs.values():
        # Neither the learning rate's end nor the window of the last decisions comes in sight.
        config.steps = 10_000
    hold = configs["atesd"].controller.hold
    peers = {name: _Peer(config.lock()) for name, config in configs.items()}
    for peer in peers.values():
        peer.steps(8 * hold)  # compiles, and completes decisions until the policy updates
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for round_ in range(rounds):
        order = list(peers) if round_ % 2 else list(reversed(peers))
        for name in order:
            seconds[name].append(peers[name].steps(hold) / hold)
    return seconds


def main() -> None:
    """Prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    seconds = measure(parser.parse_args().rounds)
    where = environment()
    print(f"commit {where['commit']}, {where['device_count']} x {where['device']}")
    for name, values in seconds.items():
        low, high = np.min(values), np.max(values)
        print(
            f"{name}: {1e3 * np.median(values):.1f} ms per step ({1e3 * low:.1f} to {1e3 * high:.1f})"
        )
    ratios = np.array(seconds["atesd"]) / np.array(seconds["opsd"])
    low, high = np.quantile(ratios, [0.25, 0.75])
    print(f"atesd / opsd: {np.median(ratios):.3f} (middle half {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
