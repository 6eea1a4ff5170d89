"""report.png: a run in a few panels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.report.colors import BLUE, GREEN, GREY, GRID, ORANGE, RED
from experiments.report.columns import column
from experiments.report.exposure_picture import exposure_panels
from experiments.workdir.files import write_atomic
from experiments.workdir.logs import METRICS, TRAJECTORIES, read_log
from experiments.workdir.outcome import ROLES, read_results
from experiments.workdir.workdir import REPORT

Panel = Callable[[Axes], None]

# More points than this hide one another.
_MAX_POINTS = 4000


def write_report(workdir: str | os.PathLike[str]) -> Path:
    """Draws what a workdir holds so far into its report.png, and returns that path."""
    path = Path(workdir)
    figure = draw_report(
        read_log(path / METRICS), read_log(path / TRAJECTORIES), read_results(path) or {}
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path / REPORT, picture.getvalue())
    return path / REPORT


def draw_report(
    metrics: Sequence[Mapping[str, Any]],
    trajectories: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
) -> Figure:
    """Panels: accuracy and loss; V against the boundary, and how far back one went; exposure.

    What there is no data for is left out. The arguments are what metrics.jsonl,
    trajectories.jsonl and results.json hold; any may be empty.
    """
    panels = report_panels(metrics, trajectories, results)
    columns = 3 if len(panels) > 4 else min(max(len(panels), 1), 2)
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(5.4 * columns, 3.9 * rows), dpi=130)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    if not panels:
        figure.text(0.5, 0.5, "Nothing was logged yet.", ha="center", va="center", color=GREY)
    for index, draw in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        style(axes)
        draw(axes)
    return figure


def report_panels(
    metrics: Sequence[Mapping[str, Any]],
    trajectories: Sequence[Mapping[str, Any]],
    results: Mapping[str, Any],
) -> list[Panel]:
    """What `draw_report` draws, panel by panel; arguments as there."""
    steered = [t for t in trajectories if t.get("values")]
    panels: list[Panel] = []
    scored = any(results.get(name) for name in ROLES)
    if scored or any(m.get("kind") == "validation" for m in metrics):
        panels.append(lambda axes: _accuracy(axes, metrics, results))
    train = [m for m in metrics if m.get("kind") == "train" and "loss" in m]
    if train:
        panels.append(lambda axes: _loss(axes, train))
    if steered:
        panels.append(lambda axes: _monitor(axes, steered))
        panels.append(lambda axes: _depth(axes, steered))
    return panels + exposure_panels(train)


def style(axes: Axes) -> None:
    """What all panels share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _accuracy(axes: Axes, metrics: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> None:
    """Validation over the steps; the test scores before and after at its two ends."""
    validation = [m for m in metrics if m.get("kind") == "validation"]
    steps = column(validation, "step")
    if len(steps):
        axes.plot(steps, column(validation, "accuracy"), "o-", ms=4, color=BLUE, label="validation")
        axes.fill_between(
            steps,
            column(validation, "low"),
            column(validation, "high"),
            color=BLUE,
            alpha=0.18,
            linewidth=0,
        )
    every = [m["step"] for m in metrics]
    last = max(every, default=1)
    teacher = results.get("teacher")
    if teacher:
        low, high = map(float, teacher["interval"])
        axes.axhspan(low, high, color=GREEN, alpha=0.15, linewidth=0)
        axes.axhline(
            float(teacher["accuracy"]), color=GREEN, linestyle="--", label="teacher (test)"
        )
    for name, step, marker, color in (("before", 0, "s", ORANGE), ("after", last, "D", RED)):
        score = results.get(name)
        if score:
            low, high = map(float, score["interval"])
            centre = float(score["accuracy"])
            axes.errorbar(
                [step],
                [centre],
                [[max(centre - low, 0.0)], [max(high - centre, 0.0)]],
                fmt=marker,
                ms=5,
                color=color,
                capsize=5,
                elinewidth=1.8,
                capthick=1.8,
                zorder=4,
                label=f"{name} (test)",
            )
    axes.set(title="Accuracy, 95 % interval", xlabel="step", ylabel="problems solved", ylim=(0, 1))
    axes.margins(x=0.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="best")


def _loss(axes: Axes, train: Sequence[Mapping[str, Any]]) -> None:
    """Each logged loss, and their running mean."""
    steps, loss = column(train, "step"), column(train, "loss")
    finite = np.isfinite(loss)
    width = max(len(loss) // 30, 1)
    if width > 1 and finite.all():
        axes.plot(steps, loss, color=BLUE, alpha=0.35, linewidth=1)
        mean = np.convolve(loss, np.ones(width) / width, mode="valid")
        middle = steps[(width - 1) // 2 :][: len(mean)]
        axes.plot(middle, mean, color=BLUE, linewidth=2, label=f"mean of {width}")
        axes.legend(frameon=False)
    else:
        axes.plot(steps, loss, "o-", ms=3, color=BLUE, linewidth=1.5)
    title = "Training loss"
    if not finite.all():
        title += f" (not finite at {np.sum(~finite)} steps)"
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    values = loss[finite]
    if len(values) and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _monitor(axes: Axes, trajectories: Sequence[Mapping[str, Any]]) -> None:
    """V of every step against its boundary: below the diagonal the step breaches."""
    points = []
    for t in trajectories:
        for index, (value, boundary) in enumerate(zip(t["values"], t["boundaries"], strict=False)):
            points.append((float(boundary), float(value), index == t.get("breach", -1)))
    if len(points) > _MAX_POINTS:
        kept = np.random.default_rng(0).choice(len(points), _MAX_POINTS, replace=False)
        points = [points[i] for i in kept]
    boundary, value, breached = (np.array(column) for column in zip(*points, strict=True))
    breached = breached.astype(bool)
    axes.fill_between([0, 1], [0, 1], color=RED, alpha=0.06, linewidth=0)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="boundary")
    axes.scatter(
        boundary[~breached],
        value[~breached],
        s=9,
        color=BLUE,
        alpha=0.35,
        linewidth=0,
        label=f"safe ({np.sum(~breached):,})",
    )
    axes.scatter(
        boundary[breached],
        value[breached],
        s=22,
        marker="x",
        color=RED,
        linewidth=1.2,
        label=f"breach ({np.sum(breached):,})",
    )
    high = min(1.0, float(np.nanmax(boundary)) * 1.1 + 0.02) if len(boundary) else 1.0
    axes.set(
        title="Monitor: V against its boundary",
        xlabel="boundary (probability)",
        ylabel="V of the step (by the teacher)",
        xlim=(0, high),
        ylim=(0, 1.02),
    )
    legend = axes.legend(frameon=True, framealpha=0.85, edgecolor="none", loc="lower left")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def _depth(axes: Axes, trajectories: Sequence[Mapping[str, Any]]) -> None:
    """From the breach back to its root, in steps."""
    depths = [t["breach"] - t["root"] for t in trajectories if t.get("breach", -1) >= 0]
    share = len(depths) / len(trajectories)
    axes.set_title(f"Backtracked: {100 * share:.0f} % of {len(trajectories):,} sampled")
    axes.set_xlabel("depth: breach - root (steps)")
    axes.set_ylabel("trajectories")
    axes.grid(visible=False, axis="x")
    if not depths:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no breach", transform=axes.transAxes, ha="center", color=GREY)
        return
    counts = np.bincount(depths)
    bars = axes.bar(np.arange(len(counts)), counts, color=ORANGE, width=0.7)
    axes.margins(y=0.1)
    axes.bar_label(bars, color=GREY, padding=2)
    axes.set_xlim(-0.6, max(len(counts), 4) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
