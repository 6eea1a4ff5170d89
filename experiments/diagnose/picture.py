"""diagnose.png: exposure bias of a pair in three panels, by response position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from experiments.report.colors import BLUE, GREY, RED

# Told apart by colour, line and marker alike.
_STYLES: dict[str, dict[str, Any]] = {
    "student": {"color": BLUE, "linestyle": "-", "marker": "o", "ms": 4},
    "teacher": {"color": RED, "linestyle": "--", "marker": "s", "ms": 4},
}


def draw(results: Mapping[str, Any]) -> Figure:
    """The picture of what `experiments.diagnose.diagnose` returns.

    Left and middle: log-probability of the teacher's and of the student's tokens under both. Right:
    KL between own and other's context. Below each, how many problems the bins hold.
    """
    figure = Figure(figsize=(14.5, 5.2), dpi=130)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 3, sharex="all", squeeze=False, height_ratios=(4, 1))
    log_probs = results["log_probs"]
    panels = (
        (
            "Log-probability of the teacher's text",
            log_probs["teacher_text"],
            "student (off-policy)",
            "teacher",
        ),
        (
            "Log-probability of the student's text",
            log_probs["student_text"],
            "student (on-policy)",
            "teacher",
        ),
        (
            "Exposure bias: KL, own to other's context",
            results["kl"],
            "student",
            "teacher (reversed)",
        ),
    )
    # The same quantity on two texts: one scale, before anything is drawn.
    grid[0, 1].sharey(grid[0, 0])
    for (above, below), (title, curves, *labels) in zip(grid.T, panels, strict=True):
        for model, label in zip(_STYLES, labels, strict=True):
            _curve(above, curves[model]["bins"], model, label)
        above.set_title(title)
        _problems(below, curves["student"]["bins"])
    for axes in grid[0, :2]:
        axes.set_ylabel("mean log p (nats per token)")
    grid[0, 2].set_ylabel("mean KL(own || other's context) (nats)")
    grid[0, 2].set_ylim(bottom=0)
    for axes in grid[0]:
        axes.legend(frameon=True, framealpha=0.85, edgecolor="none", loc="best")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.suptitle(
        f"{results['problems']:,} problems, {results['samples']} samples of each model; "
        f"bins of {results['bin']} tokens; bands: 95 % interval over problems",
        fontsize=10,
        color=GREY,
    )
    return figure


def _curve(axes: Axes, bins: list[Mapping[str, Any]], model: str, label: str) -> None:
    middle = _middles(bins)
    style = _STYLES[model]
    axes.plot(middle, [b["mean"] for b in bins], linewidth=1.6, label=label, **style)
    axes.fill_between(
        middle,
        [b["low"] for b in bins],
        [b["high"] for b in bins],
        color=style["color"],
        alpha=0.2,
        linewidth=0,
    )


def _problems(axes: Axes, bins: list[Mapping[str, Any]]) -> None:
    """How many problems contribute to each bin: the same for both curves of a panel."""
    widths = [b["end"] - b["start"] for b in bins]
    axes.bar(_middles(bins), [b["problems"] for b in bins], widths, color=GREY, alpha=0.5)
    axes.set(xlabel="position in the response (tokens)", ylabel="problems")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def _middles(bins: list[Mapping[str, Any]]) -> np.ndarray:
    return np.array([(b["start"] + b["end"] - 1) / 2 for b in bins])
