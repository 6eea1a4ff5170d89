"""Two evaluations of the same problems, compared problem by problem."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from experiments.evaluate.intervals import paired_difference
from experiments.evaluate.settings import SAMPLES

Problem = tuple[str, str]


def compare(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The difference in Average@n on the problems that both have, with its 95 % interval.

    The interval is a bootstrap over problems, each of which keeps its two averages together. The
    two may differ in their number of samples per problem.

    Args:
      before, after: records of `experiments.evaluate`.

    Returns:
      `difference`, `interval`, `before`, `after` (Average@n on the common problems), `n`
      (problems), `better`, `worse`, `equal` (problems), `left_out` (problems that one of the two
      lacks), mean lengths in tokens, `before_length` and `after_length`; and, where problems have
      groups, the same by `groups`.

    Raises:
      ValueError: there is no common problem, or one has another text or answer in the other file.
    """
    one, other = _by_problem(before), _by_problem(after)
    common = [name for name in one if name in other]
    if not common:
        raise ValueError("The two evaluations have no problem in common.")
    for name in common:
        for field in ("problem", "answer"):
            texts = one[name][0][field], other[name][0][field]
            if texts[0] != texts[1]:
                raise ValueError(
                    f"Problem {name[1]} of {name[0] or 'the data'} has another {field} in the "
                    f"other evaluation: {texts[0]!r:.80} against {texts[1]!r:.80}."
                )
    result = _compare(one, other, common)
    result["left_out"] = len(one) + len(other) - 2 * len(common)
    groups: dict[str, list[Problem]] = collections.defaultdict(list)
    for name in common:
        groups[one[name][0].get("group", "")].append(name)
    if len(groups) > 1:
        result["groups"] = {g: _compare(one, other, groups[g]) for g in sorted(groups)}
    return result


def _by_problem(records: Sequence[Mapping[str, Any]]) -> dict[Problem, list[Mapping[str, Any]]]:
    found: dict[Problem, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for record in records:
        found[record.get("source", ""), record["id"]].append(record)
    return found


def _compare(
    one: Mapping[Problem, Sequence[Mapping[str, Any]]],
    other: Mapping[Problem, Sequence[Mapping[str, Any]]],
    names: Sequence[Problem],
) -> dict[str, Any]:
    before_P, after_P = (
        np.array([np.mean([r["right"] for r in found[name]]) for name in names])
        for found in (one, other)
    )
    difference = paired_difference(after_P, before_P)
    lengths = (
        float(np.mean([np.mean([r["length"] for r in found[name]]) for name in names]))
        for found in (one, other)
    )
    return {
        "difference": difference.mean,
        "interval": [difference.low, difference.high],
        "before": float(before_P.mean()),
        "after": float(after_P.mean()),
        "n": len(names),
        "better": int(np.sum(after_P > before_P)),
        "worse": int(np.sum(after_P < before_P)),
        "equal": int(np.sum(after_P == before_P)),
        **dict(zip(("before_length", "after_length"), lengths, strict=True)),
    }


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The records of an evaluation's directory, or of a .jsonl file of samples.

    Raises:
      FileNotFoundError: there are none.
      ValueError: a line is no graded sample.
    """
    file = path / SAMPLES if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} holds no {SAMPLES}: give a directory that `experiments.evaluate --out` has "
            "finished, or a file of a run's `samples` folder."
        )
    records = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            fields = {"id", "problem", "answer", "right", "length"} - set(record)
        except (TypeError, ValueError):
            record, fields = {}, {"JSON"}
        if fields:
            raise ValueError(f"{file}, line {number}: no graded sample, it lacks {sorted(fields)}.")
        records.append(record)
    return records


def table(result: Mapping[str, Any]) -> Table:
    """A row for all problems, and one for each group."""
    names = ("before", "after", "difference", "95 % interval", "better / worse", "problems")
    shown = Table("", *(Column(n, justify="right", no_wrap=True) for n in names), box=SIMPLE_HEAD)
    groups = result.get("groups", {}).items()
    parts = {f"group {name}" if name else "no group": part for name, part in groups}
    for name, part in {"all": result, **parts}.items():
        low, high = part["interval"]
        shown.add_row(
            Text(name),
            f"{100 * part['before']:.1f} %",
            f"{100 * part['after']:.1f} %",
            f"{100 * part['difference']:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            f"{part['better']:,} / {part['worse']:,}",
            f"{part['n']:,}",
        )
    shown.caption = (
        f"{result['before_length']:,.1f} tokens on average before, "
        f"{result['after_length']:,.1f} after"
    )
    if result["left_out"]:
        shown.caption += f"; {result['left_out']:,} problems that only one of the two has"
    return shown
