"""monitor.json, monitor.png and breached.md, written of a file of scored solutions."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console
from rich.table import Table

from experiments.command.say import say
from experiments.diagnose.monitored.breached_list import breached_list
from experiments.diagnose.monitored.measures import measure
from experiments.diagnose.monitored.reading import read_solutions
from experiments.diagnose.monitored.settings import LIST, PICTURE, RESULTS, FigureSettings
from experiments.machine.environment import environment
from experiments.report.colors import BLUE, GREY, RED
from experiments.workdir.files import plain, write_atomic

# gamma_0 and the share breached in MOTAB's sweep.
_PAPER = ((0.1, 0.2, 0.3, 0.4, 0.5), (0.005, 0.039, 0.212, 0.565, 0.829))


def write_figures(settings: FigureSettings, console: Console) -> dict[str, Any]:
    """Measures, shows the shares breached, and writes.

    Returns:
      what monitor.json holds.

    Raises:
      FileNotFoundError: nothing was scored there.
      ValueError: the file is no such file, or no problem is whole.
    """
    solutions = read_solutions(settings.rollouts)
    said = {k: v for k, v in dataclasses.asdict(settings).items() if k != "rollouts"}
    results = {
        **measure(solutions, settings),
        "scored": solutions.header,
        "settings": said,
        **environment(),
    }
    console.print(share_table(results))
    picture = io.BytesIO()
    draw(results).savefig(picture, format="png")
    write_atomic(settings.rollouts / PICTURE, picture.getvalue())
    names = [RESULTS, PICTURE]
    if settings.show:
        text = breached_list(solutions, settings)
        write_atomic(settings.rollouts / LIST, text.encode())
        names.append(LIST)
    content = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    write_atomic(settings.rollouts / RESULTS, content.encode())
    wrote = f"Wrote {', '.join(names)} to {settings.rollouts}"
    say(console, wrote)
    return results


def share_table(results: dict[str, Any]) -> Table:
    """By gamma_0: share breached, where, how deep, and wrong answers under both boundaries."""
    names = ("gamma_0", "breached", "step", "depth", "wrong of breached", "static", "of others")
    table = Table(*names, title=f"{results['problems']} problems, {results['rollouts']} solutions")

    def shown(point: dict[str, Any] | None, percent: bool = True) -> str:
        if point is None:
            return ""
        return f"{100 * point['mean']:.1f} %" if percent else f"{point['mean']:.2f}"

    for row in results["breaches"]:
        a = row["adaptive"]
        table.add_row(
            f"{row['gamma_0']:g}",
            shown(a["share"]),
            shown(a["step"], False),
            shown(a["depth"], False),
            shown(a["wrong_breached"]),
            shown(row["static"]["wrong_breached"]),
            shown(a["wrong_others"]),
        )
    return table


def draw(results: dict[str, Any]) -> Figure:
    """Six panels: V by position, its histogram, shares breached; steps, depths, wrong answers."""
    figure = Figure(figsize=(14.5, 8), dpi=110)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 3)
    values, rows, shown = results["values"], results["breaches"], results["shown"]
    at = f"gamma_0 = {results['settings']['gamma_0']:g}"

    axes = grid[0, 0]
    positions = values["positions"]
    middle = [(p["start"] + p["end"]) / 2 for p in positions]
    axes.plot(middle, [p["mean"] for p in positions], color=BLUE, marker="o", ms=4)
    low, high = ([p[end] for p in positions] for end in ("low", "high"))
    axes.fill_between(middle, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.set(title="V by step position", xlabel="relative position of the step", ylim=(0, 1.02))

    axes, counts = grid[0, 1], values["histogram"]
    width = 1 / len(counts)
    shares = [x / values["steps"] for x in counts]
    axes.bar([(i + 0.5) * width for i in range(len(counts))], shares, width * 0.95, color=BLUE)
    axes.set(title=f"V of {values['steps']:,} steps", xlabel="V", ylabel="share of the steps")

    axes = grid[0, 2]
    _points(axes, rows, "adaptive", "share", BLUE, "o", "here")
    axes.plot(*_PAPER, color=GREY, marker="x", linestyle=":", label="MOTAB's paper")
    axes.set(title="Solutions breached", xlabel="gamma_0", ylabel="share", ylim=(-0.02, 1.02))
    axes.legend(frameon=False)

    for axes, name, label in ((grid[1, 0], "steps", "step"), (grid[1, 1], "depths", "depth")):
        axes.bar(range(len(shown[name])), shown[name], color=BLUE)
        words = {"steps": "First breach", "depths": "Breach less root"}[name]
        axes.set(title=f"{words}, {at}, n = {shown['breached']}", xlabel=f"{label} (steps, from 0)")
        axes.set_ylabel("solutions")

    axes = grid[1, 2]
    _points(axes, rows, "adaptive", "wrong_breached", BLUE, "o", "breached, adaptive")
    _points(axes, rows, "static", "wrong_breached", RED, "s", "breached, static, as many")
    _points(axes, rows, "adaptive", "wrong_others", GREY, "x", "not breached, adaptive")
    axes.set(title="Wrong answers", xlabel="gamma_0", ylabel="share", ylim=(-0.02, 1.02))
    axes.legend(frameon=False)

    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{results['problems']:,} problems, {results['rollouts']:,} solutions; "
        "bars and bands: 95 % interval over problems",
        fontsize=10,
        color=GREY,
    )
    return figure


def _points(
    axes: Axes, rows: Any, boundary: str, name: str, color: str, marker: str, label: str
) -> None:
    """A measure against gamma_0, with its intervals where it has any."""
    found = [(r["gamma_0"], r[boundary][name]) for r in rows if r[boundary][name] is not None]
    axes.plot(
        [g for g, _ in found],
        [p["mean"] for _, p in found],
        color=color,
        marker=marker,
        label=label,
    )
    for gamma, point in found:
        if point["low"] is not None:
            axes.vlines(gamma, point["low"], point["high"], color=color, alpha=0.5)
