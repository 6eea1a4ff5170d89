"""sweep.json, sweep.md and sweep.png."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.compare.arms import make_plan
from experiments.compare.settings import Study
from experiments.compare.sweep.measurements import ALL, make_table
from experiments.compare.table.markdown import aligned
from experiments.machine.environment import environment
from experiments.report.colors import BLUE, GREEN, ORANGE, RED
from experiments.workdir.workdir import plain, write_atomic

_TITLES = {
    "loss": "Distillation loss before training, nats per token",
    "mismatch": "Mismatch KL(teacher, student), nats per token",
    "disagreement": "Share of tokens whose likeliest token differs",
    "reference_nll": "Teacher's NLL of the reference, nats per token",
}
_COLORS = {ALL: BLUE, "easy": GREEN, "medium": ORANGE, "hard": RED}


def write_sweep(
    study: Study, workdir: Path, seeds: Sequence[int] | None, problems: int, command: str
) -> Path:
    """Writes what the finished runs say into the study's directory; returns sweep.md.

    Args:
      seeds: which of the study's; all by default.
      problems: held-out problems that teachers are compared on.
      command: how the sweep was called.
    """
    plan = make_plan(study, study.exposures, seeds)
    table = {"command": command, **make_table(plan, workdir, problems), **environment()}
    figure = draw_sweep(table)
    temporary = workdir / ".sweep.png.unfinished"
    figure.savefig(temporary, format="png")
    os.replace(temporary, workdir / "sweep.png")
    write_atomic(workdir / "sweep.json", (json.dumps(plain(table), indent=2) + "\n").encode())
    write_atomic(workdir / "sweep.md", make_markdown(table).encode())
    return workdir / "sweep.md"


def make_markdown(table: Mapping[str, Any]) -> str:
    """The whole of sweep.md; `table` as in sweep.json."""
    parts = [
        "# Exposure of the teacher",
        f"- Command: `{table['command']}`.\n- Commit: {table['commit']}.\n- Intervals: 95 %, by a "
        "bootstrap; those of accuracies over seeds and problems, crossed.",
    ]
    if "accuracy" in table:
        seeds = ", ".join(map(str, table["seeds"]))
        names = list(table["accuracy"])
        heads = ["exposure a", *(f"{n} ({table['problems'][n]})" for n in names)]
        rows = [
            [f"{a:g}", *(_percent(table["accuracy"][n][i]) for n in names)]
            for i, a in enumerate(table["exposures"])
        ]
        best = [f"{table['best'][n]['exposure']:g}" for n in names]
        sure = [f"{100 * max(table['best'][n]['shares']):.0f} %" for n in names]
        rows += [["best a", *best], ["best among resamples, most", *sure]]
        parts += [
            "## Accuracy after training, %, by difficulty",
            f"Seeds {seeds}. The test problems are in three equal parts, by how often the student "
            "solved them before training. The number of problems is in brackets.",
            aligned(heads, rows),
        ]
    else:
        parts.append("No seed has a finished run of every exposure: no accuracies.")
    names = _measures(table)
    rows = [
        [f"{a:g}", *(_number(table["teachers"][n][i]) for n in names)]
        for i, a in enumerate(table["exposures"])
    ]
    parts += [
        "## Teachers before training, on the same rollouts of the student",
        aligned(["exposure a", *names], rows),
        "Loss, mismatch and the teacher's NLL of the whole reference are in nats per token. "
        "Disagreement is a share of tokens."
        + (" The loss is the mismatch here." if "loss" not in names else ""),
        "![sweep](sweep.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _measures(table: Mapping[str, Any]) -> list[str]:
    """What is shown of the teachers: the loss only where it is not the mismatch again."""
    teachers = table["teachers"]
    again = "loss" in teachers and teachers["loss"] == teachers["mismatch"]
    return [name for name in teachers if not (again and name == "loss")]


def draw_sweep(table: Mapping[str, Any]) -> Figure:
    """Panels over exposure: accuracy by difficulty, if any, and what teachers differ in."""
    panels = (["accuracy"] if "accuracy" in table else []) + _measures(table)
    columns = 3 if len(panels) > 4 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.7 * rows), dpi=130)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    for index, name in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5", linewidth=0.8)
        if name == "accuracy":
            for part, found in table["accuracy"].items():
                _curve(axes, table["exposures"], found, _COLORS[part], part)
            axes.set_title("Problems solved after training, 95 %")
            axes.legend(frameon=False)
        else:
            _curve(axes, table["exposures"], table["teachers"][name], BLUE, name)
            axes.set_title(_TITLES[name])
        axes.set_xlabel("exposure a")
    return figure


def _curve(
    axes: Axes,
    exposures: Sequence[float],
    found: Sequence[Mapping[str, Any]],
    color: str,
    label: str,
) -> None:
    axes.plot(exposures, [x["mean"] for x in found], "o-", ms=4, color=color, label=label)
    low, high = ([x["interval"][end] for x in found] for end in (0, 1))
    axes.fill_between(exposures, low, high, color=color, alpha=0.15, linewidth=0)


def _percent(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _number(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['mean']:.4f} ({low:.4f} to {high:.4f})"
