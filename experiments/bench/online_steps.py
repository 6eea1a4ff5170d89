"""Whole steps of methods (rollout, what lies between, update) timed in turns, in one process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.config.read import read_config
from experiments.config.tree import Config
from experiments.machine.environment import environment
from experiments.methods import require_writing
from experiments.methods.online import Online
from experiments.pair.pair import Pair, load_pair, start_student
from experiments.rollouts.recipe import Recipe

MakeRecipe = Callable[[Config, Pair], Recipe]


class _Peer:
    """One method, stepping through its own copy of the batches."""

    def __init__(self, config: Config, make_recipe: MakeRecipe):
        pair = load_pair(config)
        self._method = Online(require_writing(config), pair, make_recipe(config, pair))
        self._state = self._method.init(start_student(pair, config.seed))
        self._done = 0

    def steps(self, count: int) -> float:
        """Seconds of `count` steps."""
        started = time.perf_counter()
        for _ in range(count):
            outcome = self._method.step(self._state, next(self._method.batches), self._done)
            self._state, self._done = outcome.state, self._done + 1
        jax.block_until_ready(self._state.params)
        return time.perf_counter() - started


def time_steps(
    configs: Mapping[str, ConfigDict],
    make_recipe: MakeRecipe,
    *,
    warm_up: int,
    steps: int,
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds per step of every round, by method.

    Args:
      configs: by method, of online runs; read here, with so many updates that the learning rate's
        end does not come in sight.
      make_recipe: of a config and its pair.
      warm_up: steps before the first round, in which all programs are compiled.
      steps: of a round.
      rounds: methods take turns in an order that alternates.
    """
    peers = {}
    for name, config in configs.items():
        tree = dataclasses.replace(read_config(config), steps=10_000)
        peers[name] = _Peer(tree, make_recipe)
    for peer in peers.values():
        peer.steps(warm_up)
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for round_ in range(rounds):
        for name in list(peers) if round_ % 2 else reversed(peers):
            seconds[name].append(peers[name].steps(steps) / steps)
    return seconds


def print_seconds(seconds: Mapping[str, list[float]], base: str) -> None:
    """Medians by method, and of the ratios to the method `base`, round by round."""
    where = environment()
    print(f"commit {where['commit']}, {where['device_count']} x {where['device']}")
    for name, values in seconds.items():
        middle, low, high = 1e3 * np.array([np.median(values), np.min(values), np.max(values)])
        print(f"{name}: {middle:.1f} ms per step ({low:.1f} to {high:.1f})")
    for name in seconds:
        if name != base:
            ratios = np.array(seconds[name]) / np.array(seconds[base])
            low, high = np.quantile(ratios, [0.25, 0.75])
            print(f"{name} / {base}: {np.median(ratios):.3f} (middle half {low:.3f} to {high:.3f})")
