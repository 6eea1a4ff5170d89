"""A study in three pictures: accuracies, the sweep over gamma_0, and what the monitor saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.compare.table.monitor import V_BINS
from experiments.report.colors import BLUE, GREEN, ORANGE, RED

_TITLES = {"test": "As long as trained on", "long": "Longer problems"}
_COLORS = (BLUE, ORANGE, GREEN, RED)


def write_pictures(table: Mapping[str, Any], workdir: Path) -> list[str]:
    """Draws what there is data for; returns the names of the files.

    Args:
      table: as in table.json.
    """
    drawn: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
        "accuracy.png": draw_accuracy,
        "gamma.png": draw_sweep,
        "monitor.png": draw_monitor,
    }
    names = []
    for name, draw in drawn.items():
        figure = draw(table)
        if figure is None:
            (workdir / name).unlink(missing_ok=True)
            continue
        # Whoever looks meanwhile sees a whole picture.
        temporary = workdir / f".{name}.unfinished"
        figure.savefig(temporary, format="png")
        os.replace(temporary, workdir / name)
        names.append(name)
    return names


def draw_accuracy(table: Mapping[str, Any]) -> Figure | None:
    """A bar with its interval per arm, the student before and the teacher as lines."""
    arms = list(table["arms"].values())
    data = [d for d in _TITLES if any(row["accuracy"][d] for row in arms)]
    if not data:
        return None
    figure = _figure(5.6 * len(data), 1.6 + 0.32 * len(arms))
    for index, name in enumerate(data):
        axes = _axes(figure, 1, len(data), index + 1)
        axes.grid(visible=False, axis="y")
        for place, row in enumerate(arms):
            found = row["accuracy"][name]
            if found:
                low, high = found["interval"]
                error = [[max(found["mean"] - low, 0.0)], [max(high - found["mean"], 0.0)]]
                axes.barh(place, found["mean"], height=0.68, color=BLUE, alpha=0.8, zorder=2)
                axes.errorbar(
                    found["mean"], place, xerr=error, color="black", capsize=3, lw=1.2, zorder=3
                )
        for role, label, color in (
            ("start", "student before", ORANGE),
            ("teacher", "teacher", GREEN),
        ):
            if found := table[role][name]:
                axes.axvline(found["mean"], color=color, ls="--", lw=1.6, label=label, zorder=4)
        axes.set_yticks(range(len(arms)), [row["label"] for row in arms] if not index else [])
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set(title=f"{_TITLES[name]}, 95 %", xlabel="problems solved", xlim=(0, 1.01))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        if not index and axes.get_legend_handles_labels()[0]:
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside lower center",
                ncols=2,
                frameon=False,
            )
    return figure


def draw_sweep(table: Mapping[str, Any]) -> Figure | None:
    """The share backtracked, and the accuracy, against gamma_0."""
    rows = [table["arms"][name] for name in table["study"]["sweep"] if name in table["arms"]]
    rows = sorted((r for r in rows if r["gamma_0"] is not None), key=lambda r: r["gamma_0"])
    if len(rows) < 2:
        return None
    figure = _figure(10.4, 3.9)
    share, accuracy = _axes(figure, 1, 2, 1), _axes(figure, 1, 2, 2)
    kept = [r for r in rows if r["shares"]["backtracked"] is not None]
    share.plot(
        [r["gamma_0"] for r in kept],
        [r["shares"]["backtracked"] for r in kept],
        "o-",
        color=BLUE,
        lw=2,
    )
    share.set(
        title="Trajectories backtracked", xlabel="gamma_0", ylabel="share of all", ylim=(0, 1)
    )
    for data, color in (("test", BLUE), ("long", RED)):
        measured = [r for r in rows if r["accuracy"][data]]
        if measured:
            x = [r["gamma_0"] for r in measured]
            mean = np.array([r["accuracy"][data]["mean"] for r in measured])
            ends = np.array([r["accuracy"][data]["interval"] for r in measured])
            errors = np.maximum([mean - ends[:, 0], ends[:, 1] - mean], 0.0)
            accuracy.errorbar(
                x, mean, errors, fmt="o-", color=color, lw=2, capsize=4, label=_TITLES[data]
            )
    accuracy.set(title="Accuracy, 95 %", xlabel="gamma_0", ylabel="problems solved", ylim=(0, 1))
    accuracy.legend(frameon=False)
    for axes in (share, accuracy):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def draw_monitor(table: Mapping[str, Any]) -> Figure | None:
    """Histograms of the breach's step, of the depth and of V, and V along the trajectory."""
    names = [n for n in table["study"]["monitor"] if n in table["arms"]]
    rows = [table["arms"][n] for n in names if table["arms"][n]["monitor"]][: len(_COLORS)]
    if not rows:
        return None
    figure = _figure(10.4, 7.4)
    breach, depth, v, along = (_axes(figure, 2, 2, i) for i in (1, 2, 3, 4))
    width = 0.8 / len(rows)
    for index, (row, color) in enumerate(zip(rows, _COLORS, strict=False)):
        seen = row["monitor"]
        shift = (index - (len(rows) - 1) / 2) * width
        for axes, counts in ((breach, seen["breach_step"]), (depth, seen["depth"])):
            shares = np.array(counts) / max(sum(counts), 1)
            axes.bar(np.arange(len(counts)) + shift, shares, width, color=color)
        shares = np.array(seen["v"]) / max(sum(seen["v"]), 1)
        edges = np.linspace(0.0, 1.0, V_BINS + 1)
        v.stairs(shares, edges, color=color, fill=True, alpha=0.15)
        v.stairs(shares, edges, color=color, lw=1.8, label=f"{row['label']} ({seen['sampled']:,})")
        steps = np.arange(1, len(seen["v_by_step"]) + 1)
        along.plot(steps, seen["v_by_step"], "o-", ms=4, color=color, lw=1.8)
    breach.set(title="Breaching step", xlabel="step, the first is 1", ylabel="share of breaches")
    depth.set(
        title="Backtrack depth", xlabel="steps from root to breach", ylabel="share of breaches"
    )
    v.set(title="V of all steps", xlabel="V", ylabel="share of steps", xlim=(0, 1))
    along.set(title="V along the trajectory", xlabel="step", ylabel="mean V", ylim=(0, 1.02))
    for axes, first in ((breach, 1), (depth, 0)):
        axes.grid(visible=False, axis="x")
        axes.set_xlim(first - 0.6, max(axes.get_xlim()[1], first + 3.6))
    for axes in (breach, depth, v):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (breach, depth, along):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *v.get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False
    )
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, rows: int, columns: int, index: int) -> Axes:
    axes = figure.add_subplot(rows, columns, index)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes
