"""corrections.json and corrections.png, written of the texts from several starts."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console
from rich.table import Table

from experiments.command.say import say
from experiments.diagnose.backtracked.outcomes import compare_starts
from experiments.diagnose.backtracked.settings import PICTURE, RESULTS, BacktrackedSettings
from experiments.diagnose.backtracked.starts import STARTS, breached_solutions
from experiments.diagnose.monitored.reading import Solutions
from experiments.machine.environment import environment
from experiments.report.colors import BLUE, GREY, RED
from experiments.workdir.files import plain, write_atomic

_COLORS = {"teacher": RED, "student": BLUE}


def write_outcomes(
    settings: BacktrackedSettings,
    solutions: Solutions,
    lines: Mapping[int, Mapping[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Compares the starts, shows accuracies, and writes.

    Args:
      solutions: what was scored in the settings' directory.
      lines: the texts that go on from them, by identity.

    Returns:
      what corrections.json holds.
    """
    s = settings
    breached = breached_solutions(solutions, s.gamma_0, s.alpha, s.seed)
    most = solutions.header["max_new_tokens"]
    said = {k: v for k, v in dataclasses.asdict(s).items() if k != "rollouts"}
    results = {
        **compare_starts(breached, lines, s.corrections, most),
        "scored": solutions.header,
        "settings": said,
        **environment(),
    }
    console.print(accuracy_table(results))
    picture = io.BytesIO()
    draw(results).savefig(picture, format="png")
    write_atomic(s.rollouts / PICTURE, picture.getvalue())
    content = json.dumps(plain(results), indent=2, allow_nan=False) + "\n"
    write_atomic(s.rollouts / RESULTS, content.encode())
    wrote = f"Wrote {RESULTS} and {PICTURE} to {s.rollouts}"
    say(console, wrote)
    return results


def accuracy_table(results: Mapping[str, Any]) -> Table:
    """Accuracy by start and writer, tokens, and the root's gain where the two differ."""
    title = f"{results['breached']} breached solutions of {results['problems']} problems"
    table = Table(
        "writer", "start", "accuracy", "written", "kept", "root less it", "differ", title=title
    )
    for writer, found in results["writers"].items():
        for start, x in found["starts"].items():
            other = found["differences"].get(start)
            gain = other and other["accuracy"]["all"]
            table.add_row(
                writer,
                start,
                f"{100 * x['accuracy']['mean']:.1f} %",
                f"{x['written']['mean']:.1f}",
                f"{x['kept']['mean']:.1f}",
                f"{100 * gain['mean']:+.1f}" if gain else "",
                str(other["differ"]) if other else "",
            )
    return table


def draw(results: Mapping[str, Any]) -> Figure:
    """Three panels by start: accuracy, the root's gain over others, tokens kept and written."""
    figure = Figure(figsize=(14.5, 4.6), dpi=110)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    for shift, (writer, found) in zip((-0.08, 0.08), results["writers"].items(), strict=True):
        color = _COLORS[writer]
        for axes, points in (
            (left, [found["starts"][start]["accuracy"] for start in STARTS]),
            (middle, [found["differences"][start]["accuracy"]["all"] for start in STARTS[1:]]),
        ):
            places = [i + shift for i in range(len(points))]
            axes.plot(places, [p["mean"] for p in points], "o", color=color, label=writer)
            for place, point in zip(places, points, strict=True):
                if point["low"] is not None:
                    axes.vlines(place, point["low"], point["high"], color=color)
    left.axhline(results["as_written"]["mean"], color=GREY, linestyle=":", label="as written")
    left.set(title="Accuracy of the whole solution", ylim=(-0.02, 1.02))
    left.set_xticks(range(len(STARTS)), STARTS)
    middle.axhline(0, color=GREY, linewidth=0.8)
    middle.set(title="Accuracy from the root, less that from ...")
    middle.set_xticks(range(len(STARTS) - 1), STARTS[1:])
    starts = results["writers"]["teacher"]["starts"]
    kept = [starts[start]["kept"]["mean"] for start in STARTS]
    written = [starts[start]["written"]["mean"] for start in STARTS]
    right.bar(range(len(STARTS)), kept, color=BLUE, label="kept of the student")
    right.bar(range(len(STARTS)), written, bottom=kept, color=RED, label="written by the teacher")
    right.set(title="Tokens", ylabel="mean per solution")
    right.set_xticks(range(len(STARTS)), STARTS)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False) if axes is not middle else None
    figure.suptitle(
        f"{results['breached']} breached solutions of {results['problems']} problems; "
        "bars: 95 % interval over problems",
        fontsize=10,
        color=GREY,
    )
    return figure
