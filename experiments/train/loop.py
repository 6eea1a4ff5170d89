"""The one training loop: data, updates, validation, checkpoints, metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from distill.train.state import TrainState
from experiments.checkpoints.checkpoints import Checkpoints
from experiments.checkpoints.room import check_room
from experiments.command.progress import Progress, summary_table
from experiments.command.say import say
from experiments.config.read import read_config
from experiments.config.reading import plain_fields
from experiments.config.tree import Config
from experiments.data.batches import fitting_prompts
from experiments.data.sources import load_source
from experiments.evaluate.measure import measure
from experiments.machine.environment import environment
from experiments.machine.interruption import (
    Interrupted,
    interruptible,
    reason,
    requested_anywhere,
)
from experiments.machine.placement import placement_table, state_groups
from experiments.machine.processes import any_process, fetch, first_does, is_first
from experiments.machine.profiler import Trace
from experiments.methods import make_method
from experiments.methods.base import Base
from experiments.methods.protocol import Method, Outcome
from experiments.pair.model import Model
from experiments.pair.pair import Pair, load_pair, start_student
from experiments.report.picture import write_report
from experiments.tasks.example import Example
from experiments.train.clock import Clock
from experiments.train.skipped import Skipped
from experiments.train.totals import Totals
from experiments.workdir.files import plain
from experiments.workdir.logs import METRICS, TRAJECTORIES, read_log
from experiments.workdir.outcome import TEST_SETS, read_results
from experiments.workdir.run_config import CONFIG
from experiments.workdir.shared import open_workdir
from experiments.workdir.tracking import Trackers, require
from experiments.workdir.workdir import REPORT, Workdir

log = logging.getLogger(__name__)


def run(
    config: Mapping[str, Any], workdir: str | Path, console: Console | None = None
) -> dict[str, Any]:
    """Trains as the config says, resuming whatever the workdir holds, and returns the results.

    Raises:
      ValueError: the config or the workdir does not fit; see the message.
      Interrupted: a signal asked it to end, and it has saved what it has.
      TooManySkipped: losses or gradients were not finite, step after step.
    """
    tree = read_config(config)
    console = console or Console(quiet=not is_first())
    with interruptible(), open_workdir(workdir, config) as directory:
        for line in directory.changed:
            say(console, f"Resuming with another {line}.")
        results = directory.finished()
        if results is not None:
            say(console, f"{directory.path} is complete; another --workdir starts anew.")
            # A kill came before the picture was drawn.
            if any_process(not (directory.path / REPORT).exists()):
                first_does(lambda: write_report(directory.path))
        else:
            with contextlib.ExitStack() as open:
                results = _Run.make(tree, config, directory, console, open).results()
        console.print(summary_table(results))
        say(console, f"Results, report and checkpoints: {directory.path}")
    return results


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run from the latest checkpoint to the results.

    Attributes:
      config: read and checked.
      given: the same as it was given, for whoever is told.
      data: the sets that are measured, by name.
      rate: the learning rate by update, where the method has one.
      open: closes what is told of the run.
    """

    config: Config
    given: Mapping[str, Any]
    workdir: Workdir
    console: Console
    pair: Pair
    data: Mapping[str, list[Example]]
    method: Method
    rate: Callable[[int], Any] | None
    totals: Totals
    skipped: Skipped
    clock: Clock
    open: contextlib.ExitStack

    @staticmethod
    def make(
        config: Config,
        given: Mapping[str, Any],
        workdir: Workdir,
        console: Console,
        open: contextlib.ExitStack,
    ) -> _Run:
        """Loads what the config names; prints where arrays will lie."""
        clock = Clock()
        require(config.tracking)
        say(console, "Loading the models.")
        pair = load_pair(config)
        check_room(config.checkpoint, pair.student_config, workdir.checkpoints)
        width = config.prompt.max_tokens
        data = {
            name: list(fitting_prompts(load_source(x.spec, needs_answer=True), pair.render, width))
            for name, x in config.data.measured().items()
        }
        method = make_method(config, pair, workdir)
        if pair.mesh is not None:
            arrays = state_groups(method.abstract(), pair.teacher_params)
            console.print(placement_table(pair.mesh, arrays))
        return _Run(
            config=config,
            given=given,
            workdir=workdir,
            console=console,
            pair=pair,
            data=data,
            method=method,
            rate=method.schedule if isinstance(method, Base) else None,
            totals=Totals(),
            skipped=Skipped(config.stop_after_skipped, workdir.path, console),
            clock=clock,
            open=open,
        )

    def results(self) -> dict[str, Any]:
        """Trains to the end and writes results.json and report.png."""
        checkpoint = self.config.checkpoint
        with Checkpoints(
            self.workdir.checkpoints, checkpoint.max_to_keep, checkpoint.keep_best
        ) as checkpoints:
            restored = checkpoints.restore_latest(self.method.abstract())
            if restored is None:
                self.workdir.cut_back(-1)
                self._track()
                params = start_student(self.pair, self.config.seed)
                if not self.pair.from_scratch:
                    self._evaluate("before", self.pair.student(params), 0)
                if self.pair.teacher is not None:
                    self._evaluate("teacher", self.pair.teacher, 0)
                state = self.method.init(params)
                del params
                start = 0
            else:
                state, run_state, start = restored
                self._check_identity(run_state, start)
                for problem in self.workdir.cut_back(start, run_state["logs"]):
                    log.warning(
                        "%s: %s. Totals are right all the same.", self.workdir.path, problem
                    )
                self.totals.set_state(run_state["totals"])
                self._track()
                self.method.batches.set_state(run_state["batches"])
                self.clock.set_state(run_state)
                self.skipped.set_state(run_state["skipped"])
                say(self.console, f"Resuming after step {start} of {self.config.steps}.")
                if run_state["to_validate"]:
                    accuracy = self._validate(state, start)
                    checkpoints.replace(start, state, self._run_state(), accuracy)
            state = self._train(state, start, checkpoints)
            checkpoints.wait()
        self._evaluate("after", self.pair.student(state.params), self.config.steps)

        def finish() -> dict[str, Any]:
            results = plain(self._summarise())
            self.workdir.write_results(results)
            write_report(self.workdir.path)
            return results

        return first_does(finish) or read_results(self.workdir.path) or {}

    def _track(self) -> None:
        """From here on, whoever the config names is told what the workdir logs."""
        if not is_first():  # one process logs
            return
        path = self.workdir.path
        logs = read_log(path / METRICS), read_log(path / TRAJECTORIES)
        trackers = Trackers(self.config.tracking, plain_fields(self.given, ""), path, *logs)
        self.workdir.tracker = self.open.enter_context(trackers)

    def _train(self, state: TrainState, start: int, checkpoints: Checkpoints) -> TrainState:
        every, steps = self.config.checkpoint.every, self.config.steps
        with (
            Progress(steps, start, console=self.console) as progress,
            Trace(self.config.profile, self.workdir.path) as trace,
        ):
            self.clock.skip()
            pending: tuple[int, Outcome] | None = None
            for step in range(start, steps):
                trace.before(step + 1)
                outcome = self.method.step(state, next(self.method.batches), step)
                state = outcome.state
                trace.after(step + 1, outcome.metrics)
                # A step's metrics are read once the next one is on its way to the device.
                if pending is not None:
                    self._log(*pending, progress)
                pending = step + 1, outcome
                due = (step + 1) % every == 0 or step + 1 == steps
                ending = requested_anywhere()
                if due or ending:
                    self._log(*pending, progress)
                    pending = None
                    ending = self._save(state, step + 1, due, checkpoints, progress) or ending
                    self.clock.skip()
                if ending and step + 1 < steps:
                    checkpoints.wait()
                    raise Interrupted(
                        f"{reason()}: saved after step {step + 1} of {steps}. The same command "
                        "goes on from there."
                    )
        return state

    def _save(
        self,
        state: TrainState,
        step: int,
        due: bool,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> bool:
        """Writes a checkpoint, validated where `due`; returns whether that was broken off."""
        accuracy, broken_off = None, False
        if due:
            try:
                accuracy = self._validate(state, step, progress)
            except Interrupted:  # made up for when the run goes on
                broken_off = True
        checkpoints.save(step, state, self._run_state(to_validate=broken_off), accuracy)
        return broken_off

    def _run_state(self, to_validate: bool = False) -> dict[str, Any]:
        return {
            "batches": self.method.batches.get_state(),
            **self.clock.get_state(),
            "skipped": self.skipped.get_state(),
            "totals": self.totals.get_state(),
            "logs": self.workdir.mark(),
            "config": self.workdir.identity,
            "to_validate": to_validate,
        }

    def _log(self, step: int, outcome: Outcome, progress: Progress) -> None:
        metrics = {name: float(x) for name, x in fetch(outcome.metrics).items()}
        metrics["seconds"] = seconds = self.clock.lap()
        metrics["tokens_per_second"] = metrics["tokens"] / seconds
        if self.rate is not None:
            # The schedule stands still at steps that change nothing.
            metrics["learning_rate"] = float(self.rate(step - 1 - self.skipped.updates_missed))
        self.workdir.append_metrics({"step": step, "kind": "train", **metrics})
        self.totals.add(metrics)
        samples = self.config.samples.every
        if outcome.readable is not None and samples and (step - 1) % samples == 0:
            records = outcome.readable()
            self.workdir.append_trajectories({"step": step, **record} for record in records)
        progress.update(step, metrics["tokens_per_second"], metrics["loss"])
        self.skipped.count(step, metrics, outcome)

    def _validate(
        self, state: TrainState, step: int, progress: Progress | None = None
    ) -> float | None:
        if "validation" not in self.data:
            return None
        summary, _ = self._sample("validation", self.pair.student(state.params))
        low, high = summary["interval"]
        record = {"accuracy": summary["accuracy"], "low": low, "high": high, "n": summary["n"]}
        self.workdir.append_metrics({"step": step, "kind": "validation", **record})
        if progress is not None:
            progress.update(step, accuracy=summary["accuracy"])
        return summary["accuracy"]

    def _evaluate(self, name: str, model: Model, step: int) -> None:
        """Measures on the test sets. A resumed run has the summaries in its totals."""
        for data in TEST_SETS:
            if data not in self.data:
                continue
            summary, samples = self._sample(data, model, name == "teacher")
            record = {"step": step, "kind": "evaluation", "name": name, "data": data, **summary}
            self.workdir.write_samples(f"{name}-{data}", samples)
            self.workdir.append_metrics(record)
            self.totals.score(data, name, summary)
            late = f", {summary['timed_out']} comparisons timed out" * bool(summary["timed_out"])
            say(
                self.console,
                f"{name}: accuracy {100 * summary['accuracy']:.1f} % on {summary['n']} {data} "
                f"problems ({summary['seconds']:.0f} s){late}",
            )

    def _sample(
        self, data: str, model: Model, as_teacher: bool = False
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return measure(self.config, self.pair, model, self.data[data], as_teacher=as_teacher)

    def _check_identity(self, run_state: dict[str, Any], step: int) -> None:
        """Raises where the checkpoint's run had another config than this workdir says."""
        if run_state["config"] != self.workdir.identity:
            raise ValueError(
                f"{self.workdir.checkpoints / str(step)} was written by a run of another config "
                f"than {self.workdir.path / CONFIG} has. Put back the one or the other, or use "
                "another --workdir."
            )

    def _summarise(self) -> dict[str, Any]:
        results = self.totals.results("long" in self.data)
        results["steps"] = self.config.steps
        results |= self.skipped.results()
        results["seed"] = self.config.seed
        results["wall_seconds"] = self.clock.seconds
        results["compile_seconds"] = self.clock.compile_seconds
        if problems := self.workdir.check_logs(self.config.steps):
            results["incomplete_logs"] = problems
        return results | environment()
