"""The sweep's numbers: trained students and untrained teachers, by exposure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.arms import Plan
from experiments.compare.sweep.difficulty import success_shares, terciles
from experiments.compare.sweep.teachers import compare_teachers
from experiments.compare.table.gather import Finished, read_runs, right_shares
from experiments.config.read import read_config
from experiments.config.tree import AtesdConfig, Config
from experiments.evaluate.intervals import Interval, bootstrap, crossed_bootstrap

ALL = "all"


def make_table(plan: Plan, workdir: Path, problems: int) -> dict[str, Any]:
    """Accuracy after training by exposure and difficulty, and what the exposures do to the teacher.

    Args:
      plan: its arms are those swept over.
      problems: how many teachers are compared on.

    Returns:
      `exposures`; `seeds` that all arms have; `accuracy`, by difficulty a list over exposures of
      `mean` and `interval`; `best`, by difficulty the best exposure and how often each was the best
      among resamples; `teachers`, by measure a list like those of `accuracy`; `problems` by
      difficulty.

    Raises:
      ValueError: an arm has no fixed exposure, or two have the same.
    """
    exposures = {arm: _exposure(arm, read_config(plan.arms[arm])) for arm in plan.arms}
    arms = sorted(exposures, key=lambda arm: exposures[arm])
    values = tuple(exposures[arm] for arm in arms)
    if len(set(values)) < len(values):
        raise ValueError(f"exposures: two arms have the same controller.fixed: {exposures}.")
    config = read_config(plan.measuring_config(arms[0]))
    assert isinstance(config, AtesdConfig)
    table: dict[str, Any] = {
        "exposures": list(values),
        "labels": [plan.study.label(arm) for arm in arms],
        "teachers": {
            name: [_plain(bootstrap(x_P)) for x_P in x_AxP]
            for name, x_AxP in compare_teachers(config, values, problems).items()
        },
    }
    runs = read_runs(plan.study, workdir)
    finished = [runs.get(arm, []) for arm in arms]
    seeds = sorted(set.intersection(*({run.seed for run in found} for found in finished)))
    table["seeds"] = [seed for seed in seeds if seed in plan.seeds]
    if not table["seeds"]:
        return table
    full = read_config(
        plan.config(arms[0], plan.study.selection_seed, plan.rates[0], plan.study.batch_size)
    )
    test = plan.test_data(arms[0]).test
    full = dataclasses.replace(full, data=dataclasses.replace(full.data, test=test))
    parts = {ALL: None, **terciles(success_shares(full, workdir))}
    right = {name: _right(finished, table["seeds"], wanted) for name, wanted in parts.items()}
    table["problems"] = {name: x.shape[2] for name, x in right.items()}
    table["accuracy"] = {
        name: [_plain(crossed_bootstrap(x_SxP)) for x_SxP in x_AxSxP]
        for name, x_AxSxP in right.items()
    }
    table["best"] = {
        name: {
            "exposure": values[int(np.argmax(x_AxSxP.mean(axis=(1, 2))))],
            "shares": best_shares(x_AxSxP).tolist(),
        }
        for name, x_AxSxP in right.items()
    }
    return table


def best_shares(values_AxSxP: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """How often each of A arms has the highest mean [A], over resampled seeds and problems.

    Seeds and problems are drawn alike for all arms. Equals share a win.
    """
    arms, seeds, problems = values_AxSxP.shape
    rng = np.random.default_rng(0)
    wins = np.zeros(arms)
    for _ in range(resamples):
        s, p = rng.integers(seeds, size=seeds), rng.integers(problems, size=problems)
        means = values_AxSxP[:, s].mean(axis=1)[:, p].mean(axis=1)
        best = means >= means.max() - 1e-12
        wins += best / best.sum()
    return wins / resamples


def _exposure(arm: str, config: Config) -> float:
    if not isinstance(config, AtesdConfig) or config.controller.policy != "fixed":
        raise ValueError(f"exposures: arm {arm} has no controller.policy='fixed'.")
    return float(config.controller.fixed)


def _right(
    finished: Sequence[Sequence[Finished]], seeds: Sequence[int], wanted: Sequence[str] | None
) -> np.ndarray:
    """Shares of right answers [A, S, P]; of the problems that are wanted, by id."""
    chosen = [run for found in finished for run in found if run.seed in seeds]
    shares = right_shares(chosen, "after", "test")
    assert shares is not None
    names: Mapping[str, float] = chosen[0].shares("after", "test")
    columns = [i for i, name in enumerate(names) if wanted is None or name in set(wanted)]
    return shares[:, columns].reshape(len(finished), len(seeds), len(columns))


def _plain(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "interval": [interval.low, interval.high]}
