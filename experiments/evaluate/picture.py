"""An evaluation in a picture: scores with intervals, and how long right and wrong answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report.colors import BLUE, GREEN, ORANGE

PICTURE = "evaluation.png"


def write_picture(
    directory: Path, title: str, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> Path:
    """Draws evaluation.png and returns its path."""
    figure = Figure(figsize=(10.8, 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    scores, lengths = figure.subplots(1, 2)
    for axes in (scores, lengths):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    _scores(scores, summary)
    _lengths(lengths, records)
    figure.savefig(directory / PICTURE, format="png")
    return directory / PICTURE


def _scores(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Average@n with its interval; beside it pass@n and the majority's vote."""
    groups = {f"group {name}": part for name, part in summary.get("groups", {}).items()}
    parts = {"all": summary, **summary.get("sources", {}), **groups}
    n = summary["samples"]
    at = np.arange(len(parts))[::-1]
    for y, scores in zip(at, parts.values(), strict=True):
        axes.plot(scores["interval"], [y, y], color=BLUE, linewidth=2)
    axes.plot(
        [s["accuracy"] for s in parts.values()], at, "o", color=BLUE, label=f"Average@{n}, 95 %"
    )
    if n > 1:
        largest = list(summary["pass_at_k"])[-1]
        tops = [s["pass_at_k"][largest] for s in parts.values()]
        axes.plot(tops, at, ">", color=GREEN, label=f"pass@{largest}")
        axes.plot(
            [s["majority"] for s in parts.values()],
            at,
            "|",
            color=ORANGE,
            markersize=12,
            markeredgewidth=2,
            label=f"majority@{n}",
        )
    axes.set_yticks(at, [f"{name} ({s['n']:,})" for name, s in parts.items()])
    axes.set_ylim(-0.6, len(parts) - 0.4)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=8, loc="best")


def _lengths(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    lengths = np.array([r["length"] for r in records])
    right = np.array([r["right"] for r in records], bool)
    edges = np.linspace(0, max(int(lengths.max()), 1), 31).tolist()
    for rows, color, name in ((right, GREEN, "right"), (~right, ORANGE, "wrong")):
        axes.hist(lengths[rows], edges, color=color, alpha=0.6, label=f"{name} ({rows.sum():,})")
    axes.set_xlabel("tokens")
    axes.set_ylabel("samples")
    axes.legend(frameon=False, fontsize=8)
