"""Scored solutions as arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments.diagnose.monitored.breaches import boundaries, find_breach
from experiments.diagnose.monitored.kept_lines import read_lines
from experiments.diagnose.monitored.settings import ROLLOUTS


@dataclasses.dataclass(frozen=True)
class Solution:
    """One scored solution.

    Attributes:
      problem: its problem's place in the data.
      values_L, entropies_L: float32, V and H (nats) of each step.
      line: all that the file holds of it.
    """

    problem: int
    values_L: np.ndarray
    entropies_L: np.ndarray
    line: dict[str, Any]

    def breach(self, gamma_0: float, alpha: float) -> tuple[int, int]:
        """The step that breaches first, and its root: 0-based, -1 and -1 without a breach."""
        return find_breach(self.values_L, boundaries(self.entropies_L, gamma_0, alpha))


@dataclasses.dataclass(frozen=True)
class Solutions:
    """What a file holds of the problems that are whole.

    Attributes:
      header: of the file.
      all: the solutions, by `sample_id`.
      left_out: lines behind the first problem that lacks one: those that ended early there would
        be short ones.
    """

    header: dict[str, Any]
    all: tuple[Solution, ...]
    left_out: int

    @property
    def problem_R(self) -> np.ndarray:
        """The problem of each solution."""
        return np.array([x.problem for x in self.all])

    @property
    def wrong_R(self) -> np.ndarray:
        """Which solutions are wrong."""
        return np.array([not x.line["right"] for x in self.all])

    def breaches(self, gamma_0: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Of every solution the breach and the root [R], as `Solution.breach` gives them."""
        found = np.array([x.breach(gamma_0, alpha) for x in self.all])
        return found[:, 0], found[:, 1]


def read_solutions(directory: Path) -> Solutions:
    """The solutions of the first problems, as many as have all theirs.

    Raises:
      FileNotFoundError: nothing was scored there.
      ValueError: rollouts.jsonl is no such file, or no problem is whole.
    """
    path = directory / ROLLOUTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no {ROLLOUTS}: write it with "
            "`python -m experiments.diagnose.monitored.score --out DIR`."
        )
    header, lines = read_lines(path)
    if "n" not in header or "delimiter" not in header:
        raise ValueError(f"{path} holds no scored solutions.")
    n, whole = header["n"], 0
    while all(whole * n + copy in lines for copy in range(n)):
        whole += 1
    if not whole:
        raise ValueError(f"{path} holds no problem with all its {n} solutions: go on with scoring.")
    found = tuple(
        Solution(
            i // n,
            np.array(lines[i]["values"], np.float32),
            np.array(lines[i]["entropies"], np.float32),
            lines[i],
        )
        for i in range(whole * n)
    )
    return Solutions(header, found, len(lines) - len(found))
