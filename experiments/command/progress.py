"""What a run shows while it goes on, and the table it ends with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from experiments.command.say import say
from experiments.machine.compilation import Watch
from experiments.machine.processes import is_first
from experiments.workdir.outcome import ROLES, SOURCES

# The pace is that of the last minute, so that compiling does not weigh on it for long.
_WINDOW_SECONDS = 60.0
# Most of a large model's first minutes goes into compiling: they should not pass in silence.
_QUIET_SECONDS = 15.0
_SHARES = {
    "backtracked": "trajectories backtracked",
    "accepted": "student's steps accepted",
    "kept": "trajectories kept",
    "reward": "mean reward",
}


class Progress:
    """A bar on a terminal; elsewhere a plain line now and then. Use as a context manager.

    A line comes at once. While no step ends, others say how long this has taken and how much was
    compiled. What is printed to the same console meanwhile appears above the bar.

    Args:
      total: steps of the whole run.
      start: steps done already, in a resumed run.
      label: what is going on.
      console: where to show it; standard output by default.
      every_seconds: between two plain lines.
      quiet_seconds: between two lines while no step ends.
      clock: seconds, for tests.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        label: str = "train",
        console: Console | None = None,
        every_seconds: float = 5.0,
        quiet_seconds: float = _QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._label = label
        self._console = console or Console(quiet=not is_first())
        self._every_seconds, self._quiet_seconds = every_seconds, quiet_seconds
        self._clock = clock
        self._compiled, self._started = Watch(), clock()
        self._ended = threading.Event()
        self._updates = 0
        self._shown: dict[str, float] = {}
        self._last_line = -float("inf")
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=self._console,
            expand=True,
            refresh_per_second=4,
            speed_estimate_period=_WINDOW_SECONDS,
            get_time=clock,
        )
        task = self._bar.add_task(label, total=total, completed=start, status="")
        self._task = self._bar.tasks[task]
        # Where nothing can be drawn, the bar only reckons.
        self._drawn = self._console.is_terminal and not self._console.is_dumb_terminal

    def update(
        self,
        step: int,
        tokens_per_second: float | None = None,
        loss: float | None = None,
        accuracy: float | None = None,
    ) -> None:
        """Shows that `step` is done. What is not given stays as it was."""
        given = {"tokens_per_second": tokens_per_second, "loss": loss, "accuracy": accuracy}
        self._shown |= {name: float(x) for name, x in given.items() if x is not None}
        shown = self._status()
        self._updates += 1
        self._bar.update(self._task.id, completed=step, status=shown)
        now = self._clock()
        if self._drawn:
            return
        if now - self._last_line >= self._every_seconds or step == self._task.total:
            self._last_line = now
            parts = (f"{self._label} {step}/{self._task.total:.0f}", self._remaining(), shown)
            # One line stays one line in a log file, whatever width is taken for its terminal.
            text = "  ".join(filter(None, parts))
            say(self._console, text)

    def __enter__(self) -> Progress:
        if self._drawn:
            self._bar.start()
        else:
            say(self._console, f"{self._label} {self._place()}")
        self._ended.clear()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._heart.join()
        if self._drawn:
            self._bar.stop()

    def _place(self) -> str:
        return f"{self._task.completed:.0f}/{self._task.total:.0f}"

    def _beat(self) -> None:
        """Until the first step ends, and wherever one takes long, says that work goes on."""
        seen = self._updates
        while not self._ended.wait(self._quiet_seconds):
            if seen == self._updates:
                status = f"{duration(self._clock() - self._started)} so far, {self._compiling()}"
                self._bar.update(self._task.id, status=status)
                if not self._drawn:
                    say(self._console, f"{self._label} {self._place()}  {status}")
            seen = self._updates

    def _compiling(self) -> str:
        programs, seconds = self._compiled.programs, duration(self._compiled.seconds)
        return f"{programs} programs compiled in {seconds}"

    def _remaining(self) -> str:
        """The time to the end at the pace of the last minute, once there is a pace."""
        seconds = self._task.time_remaining
        return "" if seconds is None else f"ETA {duration(seconds)}"

    def _status(self) -> str:
        shown = self._shown
        parts = []
        if "tokens_per_second" in shown:
            parts.append(f"{shown['tokens_per_second']:,.0f} tok/s")
        if "loss" in shown:
            parts.append(f"loss {shown['loss']:.4f}")
        if "accuracy" in shown:
            parts.append(f"accuracy {100 * shown['accuracy']:.1f} %")
        return "  ".join(parts)


def summary_table(results: Mapping[str, Any]) -> RenderableType:
    """The outcome of a run: accuracy before, after and of the teacher, and what it trained on.

    Args:
      results: as in results.json: `before`, `after` and perhaps `teacher`, each with accuracy,
        interval, n, mean_length (tokens) and truncation_rate; perhaps `synthesis` with `tokens` by
        source and any of the shares `backtracked`, `accepted` and `kept`.
    """
    table = Table(box=box.SIMPLE_HEAD, title="Results", title_justify="left")
    table.add_column("")
    for name in ("accuracy", "95 % interval", "n", "mean length", "truncated"):
        table.add_column(name, justify="right")
    rows = [(name, results.get(name)) for name in ROLES]
    rows += [(f"{name}, longer", row) for name, row in results.get("long", {}).items()]
    for name, row in rows:
        if row:
            low, high = row["interval"]
            table.add_row(
                name,
                _percent(row["accuracy"]),
                f"{100 * float(low):.1f} to {100 * float(high):.1f}",
                f"{row['n']}",
                f"{float(row['mean_length']):.1f} tokens",
                _percent(row["truncation_rate"]),
            )
    lines = []
    before, after = results.get("before"), results.get("after")
    if before and after:
        gain = 100 * (float(after["accuracy"]) - float(before["accuracy"]))
        lines.append(f"  change: {gain:+.1f} points")
    synthesis = results.get("synthesis")
    if synthesis:
        lines += [
            f"  {label}: {_percent(synthesis[name])}"
            for name, label in _SHARES.items()
            if name in synthesis
        ]
        tokens = synthesis["tokens"]
        total = sum(tokens.values())
        shares = [
            f"{source} {tokens[source]:,} ({_percent(tokens[source] / max(total, 1))})"
            for source in SOURCES
            if tokens.get(source)
        ]
        lines.append(f"  tokens: {', '.join(shares) or 'none'}")
    if "wall_seconds" in results and "compile_seconds" in results:
        seconds = duration(float(results["wall_seconds"]))
        compiling = duration(float(results["compile_seconds"]))
        lines.append(f"  wall time: {seconds}, of which XLA compiled for {compiling}")
    return Group(table, *lines)


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f} %"


def duration(seconds: float) -> str:
    """As in 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
