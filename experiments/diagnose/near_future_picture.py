"""near_future.png: loss against transport distance, and the distances by kind of position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.report.colors import BLUE, GREY, ORANGE, RED

# Told apart by colour, line and marker alike.
_STYLES: dict[str, dict[str, Any]] = {
    "high": {"color": RED, "marker": "s", "linestyle": "-"},
    "random": {"color": GREY, "marker": ".", "linestyle": ":"},
    "low": {"color": BLUE, "marker": "o", "linestyle": "--"},
}


def draw(results: Mapping[str, Any]) -> Figure:
    """The picture of what `experiments.diagnose.near_future.near_future` returns.

    Left: every window's loss and distance. Right: the share of windows up to a distance; where the
    high-loss curve crosses the threshold is the share of false alarms.
    """
    figure = Figure(figsize=(10.5, 4.4), dpi=130)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for kind, style in _STYLES.items():
        points = np.asarray(results["points"][kind])
        median = results["positions"][kind]["median_distance"]
        left.scatter(
            points[:, 0],
            points[:, 1],
            s=12,
            alpha=0.45,
            linewidths=0,
            color=style["color"],
            marker=style["marker"],
            label=f"{kind} loss",
        )
        ordered = np.sort(points[:, 1])
        right.step(
            ordered,
            np.arange(1, len(ordered) + 1) / len(ordered),
            where="post",
            color=style["color"],
            linestyle=style["linestyle"],
            label=f"{kind} loss, median {median:.3f}",
        )
    bound, share = results["threshold"], results["false_alarms"]
    for axes, line in ((left, left.axhline), (right, right.axvline)):
        line(bound, color=ORANGE, linewidth=1, label="upper quartile of low")
        axes.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set(
        xlabel="-log q of the student's token (nats)",
        ylabel="D_OT of the windows",
        title=f"{_correlations(results['correlation'])}",
    )
    left.set_xscale("symlog", linthresh=0.1)
    left.set_xlim(left=-0.02)
    right.set(
        xlabel="D_OT of the windows",
        ylabel="share of positions",
        title=f"False alarms: {100 * share:.1f} % of the high-loss positions",
    )
    figure.suptitle(
        f"{results['texts']:,} texts of the student, windows of {results['window']} tokens",
        fontsize=10,
        color=GREY,
    )
    return figure


def _correlations(of: Mapping[str, Any]) -> str:
    found = of["random"]
    if found["pearson"] is None:
        return "Loss and distance at random positions"
    return f"At random positions: Pearson {found['pearson']:.2f}, Spearman {found['spearman']:.2f}"
