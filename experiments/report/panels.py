"""Panels that only the page has: V against gamma by step, and curves of several runs together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.report.colors import BLUE, GREEN, ORANGE, RED
from experiments.report.columns import column
from experiments.workdir.results import Run

# A run's colour wherever several are shown.
RUN_COLORS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
Records = Sequence[Mapping[str, Any]]
# Logged with every update, and shown as panels of their own or of no interest over time.
_UNCHARTED = {"step", "kind"}


def by_step(axes: Axes, trajectories: Records) -> None:
    """V and gamma of the first, second, ... steps: means, and the middle 80 % of V."""
    longest = max(len(t["values"]) for t in trajectories)
    steps, rows = [], []
    for index in range(longest):
        pairs = np.array(
            [
                (float(t["values"][index]), float(t["boundaries"][index]))
                for t in trajectories
                if len(t["values"]) > index
            ]
        )
        if np.isfinite(pairs).all():
            low, high = np.percentile(pairs[:, 0], [10, 90])
            steps.append(index + 1)
            rows.append((pairs[:, 0].mean(), low, high, pairs[:, 1].mean()))
    if rows:
        mean, low, high, gamma = np.array(rows).T
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, lw=0, label="V, 80 %")
        axes.plot(steps, mean, "o-", ms=3, color=BLUE, lw=1.6, label="V, mean")
        axes.plot(steps, gamma, "--", color=RED, lw=1.4, label="gamma, mean")
        axes.legend(frameon=False)
    axes.set(
        title="V against gamma by step",
        xlabel="step of the trajectory",
        ylabel="probability",
        ylim=(0, 1.02),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def validation(axes: Axes, runs: Sequence[tuple[str, Run]]) -> None:
    """Validation accuracy of every run, with its interval."""
    for number, (name, run) in enumerate(runs):
        records = [m for m in run.metrics if m["kind"] == "validation"]
        if records:
            steps, color = column(records, "step"), RUN_COLORS[number % len(RUN_COLORS)]
            axes.fill_between(
                steps,
                column(records, "low"),
                column(records, "high"),
                color=color,
                alpha=0.12,
                lw=0,
            )
            axes.plot(
                steps,
                column(records, "accuracy"),
                _dash(number),
                color=color,
                marker="o",
                ms=3,
                label=name,
            )
    axes.set(title="Validation accuracy, 95 % interval", xlabel="step", ylabel="problems solved")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def curve(axes: Axes, runs: Sequence[tuple[str, Run]], name: str, legend: bool = True) -> None:
    """One logged metric of every run that has it."""
    for number, (label, run) in enumerate(runs):
        records = [m for m in run.train if name in m]
        if records:
            axes.plot(
                column(records, "step"),
                column(records, name),
                _dash(number),
                color=RUN_COLORS[number % len(RUN_COLORS)],
                lw=1.3,
                marker="o" if len(records) == 1 else None,
                label=label,
            )
    axes.set(title=name, xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    if legend and len(runs) > 1:
        axes.legend(frameon=False)


def _dash(number: int) -> str:
    """Curves differ in more than colour once the palette begins again."""
    return _DASHES[number // len(RUN_COLORS) % len(_DASHES)]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """What any run logged of its updates, in the order of the log, if it ever changes."""
    names: dict[str, set[Any]] = {}
    for run in runs:
        for record in run.train:
            for name, value in record.items():
                if name not in _UNCHARTED:
                    names.setdefault(name, set()).add(value)
    return [name for name, values in names.items() if len(values) > 1]


def shared_panels(runs: Sequence[tuple[str, Run]]) -> list[tuple[str, Callable[[Axes], None]]]:
    """Accuracy and loss of several runs, by name of the panel."""
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    if any(m["kind"] == "validation" for _, run in runs for m in run.metrics):
        panels.append(("validation", lambda axes: validation(axes, runs)))
    for metric in ("loss", "exposure"):
        if any(metric in m for _, run in runs for m in run.train):
            panels.append((metric, functools.partial(curve, runs=runs, name=metric)))
    return panels
