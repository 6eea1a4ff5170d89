"""Runs a study: every arm, every seed, one run after another, resuming what is there.

First every arm's batch size is fitted to the tokens of an update, and its learning rate is chosen,
on validation, by runs that see no test set. Only then do the runs that count begin, seed by seed,
so that a study cut short compares all arms on fewer seeds. Finished runs are left as they are.
"""

from __future__ import annotations

import gc
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from experiments.command.say import say
from experiments.compare.arms import (
    Plan,
    make_plan,
    seed_directory,
    selection_directory,
)
from experiments.compare.best import BEST, measure_best
from experiments.compare.selection import Choice, choose
from experiments.compare.settings import Study
from experiments.compare.table.report import write_report
from experiments.compare.tokens import BatchSize, fit_batch_size, read_batch_size
from experiments.config.read import read_config
from experiments.config.tree import Config
from experiments.machine.interruption import check, interruptible
from experiments.rollouts.synthesis import SYNTHESIS
from experiments.train import loop
from experiments.workdir.workdir import (
    RESULTS,
    Workdir,
    config_differences,
    plain,
    read_results,
    read_run_config,
)

ERROR = "error.txt"
Train = Callable[[ConfigDict, Path, Console], Any]
Fit = Callable[[Config, float, Path], BatchSize]


def compare(
    study: Study,
    workdir: str | Path,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    budget: float | None = None,
    command: str = "",
    console: Console | None = None,
    train: Train = loop.run,
    fit: Fit = fit_batch_size,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Runs what is missing and writes table.md, table.json and the pictures.

    Args:
      study: what is compared; see `read_study`.
      workdir: of the study; a run lives in `ARM/seed-SEED` or `ARM/rate-RATE`.
      arms, seeds: which of the study's; all by default.
      budget: minutes after which no further run is started; the table says what is missing.
      command: how the study was called, for the table's header.
      train, fit, clock: for tests.

    Returns:
      what failed: an error by arm.

    Raises:
      ValueError: the study, or what the workdir holds, does not fit; see the message.
      Interrupted: a signal asked it to end; finished runs stay, and the table shows them.
    """
    console = console or Console()
    plan = make_plan(study, arms, seeds)
    with interruptible(), Workdir(workdir, plan.rules()) as directory:
        work = _Work(plan, directory.path, budget, console, train, fit, clock)
        work.refuse_other_configs()
        try:
            work.run_seeds(work.choose_rates())
        finally:  # an interrupted study shows what it has
            write_report(plan, directory.path, work.missing, command, clock() - work.started)
    for name, reason in work.missing.items():
        say(console, f"Missing: {name}: {reason}")
    say(console, f"Table and pictures: {directory.path / 'table.md'}")
    return work.failed


class _Work:
    """The runs of one call."""

    def __init__(
        self,
        plan: Plan,
        workdir: Path,
        budget: float | None,
        console: Console,
        train: Train,
        fit: Fit,
        clock: Callable[[], float],
    ):
        self.plan, self.workdir, self.console = plan, workdir, console
        self.train, self.fit = train, fit
        self.batches = {arm: self._known_batch(arm) for arm in plan.arms}
        self.clock, self.started = clock, clock()
        self.budget = float("inf") if budget is None else budget
        # Why a run is not there, by its name ARM/seed-SEED; and which of them failed.
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.total = len(plan.arms) * (
            len(plan.seeds) + (len(plan.rates) if len(plan.rates) > 1 else 0)
        )
        self.number = 0

    def refuse_other_configs(self) -> None:
        """Raises where a selection run in the workdir has another config, before any work."""
        for arm, batch in self.batches.items():
            if batch is None:
                continue
            for rate in self.plan.rates:
                directory = selection_directory(self.workdir, arm, rate)
                _check_config(directory, self.plan.selection_config(arm, rate, batch.batch_size))

    def choose_rates(self) -> dict[str, Choice]:
        """Each arm's batch size and learning rate; an arm with a failed or missing run has none."""
        choices = {}
        for arm in self.plan.arms:
            problem = self._fit_batch(arm) or self._try_rates(arm)
            if problem is None:
                choices[arm] = choose(self.plan, self.workdir, arm)
                continue
            for seed in self.plan.seeds:
                self._miss(arm, seed, f"no learning rate was chosen: {problem}")
        return choices

    def _fit_batch(self, arm: str) -> str | None:
        """Fits an arm's batch size, where it is not known yet; returns why it could not be done."""
        if self.batches[arm] is not None:
            return None
        if self._out_of_budget():
            return self._not_started()
        say(self.console, f"{arm}: fitting its batch to the tokens of an update")
        target, directory = self.plan.study.tokens_per_update, self.workdir / arm
        try:
            self.batches[arm] = self.fit(
                read_config(self.plan.measuring_config(arm)), target, directory
            )
            return None
        except Exception as error:
            return self._fail(arm, directory, error)

    def _try_rates(self, arm: str) -> str | None:
        """Runs an arm with every learning rate of the grid; returns why one could not be done."""
        rates = self.plan.rates if len(self.plan.rates) > 1 else ()
        problem = None
        for rate in rates:
            directory = selection_directory(self.workdir, arm, rate)
            config = self.plan.selection_config(arm, rate, self._batch_size(arm))
            # What was synthesised for the first rate does not depend on it.
            _copy_missing(selection_directory(self.workdir, arm, rates[0]), directory, SYNTHESIS)
            problem = problem or self._run(arm, directory, config, self._is_trained)
        return problem

    def run_seeds(self, choices: dict[str, Choice]) -> None:
        """The runs that count. An arm that failed once is not tried on further seeds."""
        broken: dict[str, str] = {}
        for seed in self.plan.seeds:
            for arm, choice in choices.items():
                directory = seed_directory(self.workdir, arm, seed)
                config = self.plan.config(arm, seed, choice.rate, self._batch_size(arm))
                problem = broken.get(arm) or self._run(arm, directory, config, self._is_measured)
                if problem is not None:
                    self._miss(arm, seed, problem)
                    if arm in self.failed:
                        broken[arm] = problem

    def _run(
        self, arm: str, directory: Path, config: ConfigDict, finished: Callable[[Path], bool]
    ) -> str | None:
        """Does one run, unless it is finished; returns why it could not be done."""
        self.number += 1
        name = str(directory.relative_to(self.workdir))
        try:
            _check_config(directory, config)
            if finished(directory):
                return None
            if self._out_of_budget():
                return self._not_started()
            check(f"{self.number - 1} of {self.total} runs were looked at.")
            say(self.console, f"[{self.number}/{self.total}] {name}")
            if not self._is_trained(directory):
                self.train(config, directory, self.console)
            if not finished(directory):
                measure_best(read_config(config), self.plan.test_data(arm), directory)
            (directory / ERROR).unlink(missing_ok=True)
            return None
        except Exception as error:
            return self._fail(arm, directory, error)
        finally:
            # A run's compiled functions are its own; those of a hundred runs fill the memory.
            jax.clear_caches()
            gc.collect()

    def _fail(self, arm: str, directory: Path, error: Exception) -> str:
        """Writes down an error, to be called while it is handled; returns it in a line."""
        problem = f"{type(error).__name__}: {error}"
        self.failed[arm] = problem
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
        name = directory.relative_to(self.workdir)
        say(self.console, f"{name} failed: {problem}")
        return problem

    def _known_batch(self, arm: str) -> BatchSize | None:
        if not self.plan.study.tokens_per_update:
            return BatchSize(self.plan.study.batch_size)
        return read_batch_size(self.workdir / arm)

    def _batch_size(self, arm: str) -> int:
        batch = self.batches[arm]
        assert batch is not None
        return batch.batch_size

    def _out_of_budget(self) -> bool:
        return self.clock() - self.started >= 60 * self.budget

    def _not_started(self) -> str:
        return f"not started within --budget {self.budget:g}"

    def _is_trained(self, directory: Path) -> bool:
        return read_results(directory) is not None

    def _is_measured(self, directory: Path) -> bool:
        return self._is_trained(directory) and (not self.plan.best or (directory / BEST).exists())

    def _miss(self, arm: str, seed: int, reason: str) -> None:
        self.missing[f"{arm}/seed-{seed}"] = reason


def _copy_missing(source: Path, target: Path, name: str) -> None:
    """Copies a file of a finished run to a run that has none."""
    if (source / RESULTS).exists() and (source / name).exists() and not (target / name).exists():
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / f"{name}.part")
        (target / f"{name}.part").rename(target / name)


def _check_config(directory: Path, config: ConfigDict) -> None:
    """Raises where a directory holds a run of another config."""
    try:
        there = read_run_config(directory)
    except FileNotFoundError:
        return
    differences = config_differences(there, plain(config.to_dict()))
    if differences:
        raise ValueError(
            f"{directory} holds a run with another config:\n  "
            + "\n  ".join(differences)
            + "\nRemove it, or use another --workdir."
        )
