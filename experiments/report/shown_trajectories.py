"""Sampled trajectories as a terminal shows them, coloured by who wrote what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

STYLES = {
    "student": "bright_blue",
    "flawed": "yellow underline",
    "revision": "bold magenta",
    "teacher": "green",
}
_BAR = 20


def select(
    records: Sequence[Mapping[str, Any]], n: int, step: int | None = None, breached: bool = False
) -> list[Mapping[str, Any]]:
    """The last `n` records (0: all) of one step and kind.

    Raises:
      ValueError: n is negative, or there are none.
    """
    if n < 0:
        raise ValueError(f"--n {n} must be 0 (all) or more.")
    found = [
        r
        for r in records
        if (step is None or r["step"] == step) and (not breached or r.get("breach", -1) >= 0)
    ]
    if not found:
        steps = sorted({r["step"] for r in records})
        where = f"They were sampled at steps {steps}." if steps else "samples.every says when."
        raise ValueError(f"There are no such trajectories. {where}")
    return found[-n:] if n else found


def trajectory(record: Mapping[str, Any], color: bool = True) -> RenderableType:
    """One trajectory: its text by who wrote it and, where a monitor watched, its steps.

    Args:
      record: a line of trajectories.jsonl.
      colour: False marks parts by name.
    """
    text = Text()
    for part in record.get("parts", []):
        if not color:
            text.append(f"[{part['source']}] ")
        text.append(part["text"], STYLES.get(part["source"], ""))
    title = Text.assemble((str(record.get("prompt", "")), "bold"))
    below = Text(
        f"step {record['step']}, {record.get('id', '')}, answer {record.get('answer', '')}"
    )
    parts: list[RenderableType] = [title, Text(), text]
    if record.get("values"):
        parts += [Text(), _steps(record)]
    return Panel(Group(*parts), subtitle=below, subtitle_align="left", box=box.ROUNDED)


def _steps(record: Mapping[str, Any]) -> Table:
    """V and gamma of every step, and which of them breached."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("step", "V", "gamma"):
        table.add_column(name, justify="right")
    table.add_column("V █, gamma │", no_wrap=True)
    table.add_column("")
    breach, root = record.get("breach", -1), record.get("root", -1)
    for index, (value, boundary) in enumerate(
        zip(map(float, record["values"]), map(float, record["boundaries"]), strict=False)
    ):
        cells = ["█" if (i + 0.5) / _BAR <= value else "·" for i in range(_BAR)]
        cells[min(_BAR - 1, max(0, int(boundary * _BAR)))] = "│"
        marks = [name for name, at in (("root", root), ("breach", breach)) if at == index]
        table.add_row(
            str(index + 1),
            f"{value:.3f}",
            f"{boundary:.3f}",
            "".join(cells),
            ", ".join(marks),
            style="red" if index == breach else None,
        )
    return table


def show(records: Sequence[Mapping[str, Any]], console: Console, color: bool) -> None:
    """Prints trajectories, and below them which colour stands for whom."""
    for record in records:
        console.print(trajectory(record, color))
    sources = [name for name in STYLES if any(_wrote(name, record) for record in records)]
    console.print(Text.assemble(*[(f"{name}  ", STYLES[name]) for name in sources]))


def _wrote(source: str, record: Mapping[str, Any]) -> bool:
    return any(part["source"] == source for part in record.get("parts", []))
