"""Reads the finished runs of a study back from its directory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.compare.arms import seed_directory
from experiments.compare.best import BEST
from experiments.compare.settings import Study
from experiments.workdir.results import Run
from experiments.workdir.workdir import read_results, read_run_config


@dataclasses.dataclass(frozen=True)
class Finished(Run):
    """A run that counts.

    Attributes:
      results: as in results.json; under the rule `best`, those of the best checkpoint.
    """

    arm: str
    seed: int

    def shares(self, role: str, data: str) -> dict[str, float]:
        """The share of right samples of every problem, by its id."""
        if (role, data) not in self._shares:
            verdicts: dict[str, list[bool]] = {}
            for sample in self.samples(role, data):
                verdicts.setdefault(sample["id"], []).append(bool(sample["right"]))
            self._shares[role, data] = {k: float(np.mean(right)) for k, right in verdicts.items()}
        return self._shares[role, data]

    @functools.cached_property
    def _shares(self) -> dict[tuple[str, str], dict[str, float]]:
        return {}


def read_runs(study: Study, workdir: Path) -> dict[str, list[Finished]]:
    """The finished runs of every arm of the study that has any, in the study's order."""
    runs: dict[str, list[Finished]] = {}
    for arm in study.arms:
        for seed in study.seeds:
            directory = seed_directory(workdir, arm, seed)
            results = read_results(directory)
            if results is None:
                continue
            if study.checkpoint == "best":
                if not (directory / BEST).exists():
                    continue
                results |= read_results(directory, BEST) or {}
            run = Finished(directory, read_run_config(directory), results, arm, seed)
            runs.setdefault(arm, []).append(run)
    return runs


def right_shares(runs: Sequence[Finished], role: str, data: str) -> np.ndarray | None:
    """The share of right samples per seed and problem, [S, P]; None where nothing was measured.

    Raises:
      ValueError: two runs were measured on different problems.
    """
    shares = [run.shares(role, data) for run in runs]
    if not shares or not shares[0]:
        return None
    for run, found in zip(runs, shares, strict=True):
        if found.keys() != shares[0].keys():
            raise ValueError(
                f"{run.directory} and {runs[0].directory} were measured on different problems of "
                f"data.{data}."
            )
    return np.array([[found[problem] for problem in shares[0]] for found in shares])


def paired(
    runs: Sequence[Finished], reference: Sequence[Finished], data: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Two arms after training on the seeds that both have, [S, P] each; None where there are none.

    Raises:
      ValueError: two runs were measured on different problems.
    """
    theirs = {run.seed: run for run in reference}
    common = [run for run in runs if run.seed in theirs]
    both = right_shares([*common, *(theirs[run.seed] for run in common)], "after", data)
    return None if both is None else (both[: len(common)], both[len(common) :])
