"""What TOPD's look ahead costs: `python -m experiments.bench_windows [--rounds 8]`.

Whole steps (rollout, windows, update) of `configs/topd.py`, of the same with `windows.student = "reuse"`,
and of `configs/topd.py:opd`, in turns, in one process and on the same batches; medians over rounds of steps. The
ratio of gradients, which costs two more gradients when it is measured, is not. The students train, so that
their rollouts may differ in length after the first update. The paper reports 1.41 x OPD.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np

from configs import topd
from experiments.methods import make_recipe
from experiments.methods.online import Online
from experiments.pair import load_pair, start_student
from experiments.workdir import environment

_STEPS = 5  # of a round


class _Peer:
    """One method, stepping through its own copy of the batches."""

    def __init__(self, config: Any):
        pair = load_pair(config)
        self.method = Online(config, pair, make_recipe(config, pair))
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
    arms = {"opd": "opd", "topd": "", "topd, reuse": ""}
    configs = {name: topd.get_config(arg) for name, arg in arms.items()}
    configs["topd, reuse"].windows.student = "reuse"
    for name in ("topd", "topd, reuse"):
        configs[name].guidance.gradient_ratio_every = 0
    for config in configs.values():
        config.steps = 10_000  # the learning rate's end does not come in sight
    peers = {name: _Peer(config.lock()) for name, config in configs.items()}
    for peer in peers.values():
        peer.steps(_STEPS)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for round_ in range(rounds):
        order = list(peers) if round_ % 2 else list(reversed(peers))
        for name in order:
            seconds[name].append(peers[name].steps(_STEPS) / _STEPS)
    return seconds


def main() -> None:
    """Prints medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    seconds = measure(parser.parse_args().rounds)
    where = environment()
    print(f"commit {where['commit']}, {where['device_count']} x {where['device']}")
    for name, values in seconds.items():
        low, high = np.min(values), np.max(values)
        print(
            f"{name}: {1e3 * np.median(values):.1f} ms per step ({1e3 * low:.1f} to {1e3 * high:.1f})"
        )
    for name in list(seconds)[1:]:
        ratios = np.array(seconds[name]) / np.array(seconds["opd"])
        low, high = np.quantile(ratios, [0.25, 0.75])
        print(f"{name} / opd: {np.median(ratios):.3f} (middle half {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
