"""Graded samples as numbers, and as a table."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.evaluate.intervals import (
    average_at_n,
    bootstrap,
    majority_at_n,
    mean_of_sets,
    pass_at_k,
)


def summarize(records: Sequence[Mapping[str, Any]], n: int, seconds: float) -> dict[str, Any]:
    """The summary that `evaluate` returns, of records in the order of problems."""
    lengths = np.array([r["length"] for r in records])
    summary = {
        **_scores(records, n),
        "mean_length": float(lengths.mean()),
        "truncation_rate": float(np.mean([r["truncated"] for r in records])),
        "timed_out": sum(bool(r.get("timed_out")) for r in records),
        "tokens": int(lengths.sum()),
        "seconds": seconds,
    }
    for key, name in (("source", "sources"), ("group", "groups")):
        parts = _split(records, n, key)
        if len(parts) > 1:
            summary[name] = {part: _scores(found, n) for part, found in parts.items()}
    if "sources" in summary:
        mean = mean_of_sets(
            [average_at_n(_verdicts(found, n)) for found in _split(records, n, "source").values()]
        )
        summary["mean_of_sources"] = {"accuracy": mean.mean, "interval": [mean.low, mean.high]}
    return summary


def _scores(records: Sequence[Mapping[str, Any]], n: int) -> dict[str, Any]:
    right_PxN = _verdicts(records, n)
    finals = [r["final"] for r in records]
    answers = [finals[i : i + n] for i in range(0, len(finals), n)]
    accuracy = bootstrap(average_at_n(right_PxN))
    return {
        "accuracy": accuracy.mean,
        "interval": [accuracy.low, accuracy.high],
        "n": len(right_PxN),
        "samples": n,
        "pass_at_k": {str(k): float(pass_at_k(right_PxN, k).mean()) for k in _powers_of_two(n)},
        "majority": float(majority_at_n(answers, right_PxN).mean()),
    }


def _split(
    records: Sequence[Mapping[str, Any]], n: int, key: str
) -> dict[str, list[Mapping[str, Any]]]:
    """Records by the value of `key`, in the order of the values; those without one are left out."""
    parts: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for record in records:
        if record.get(key):
            parts[record[key]].append(record)
    return dict(sorted(parts.items())) if key == "group" else dict(parts)


def _verdicts(records: Sequence[Mapping[str, Any]], n: int) -> np.ndarray:
    return np.array([r["right"] for r in records], bool).reshape(-1, n)


def _powers_of_two(n: int) -> list[int]:
    return [1 << i for i in range(n.bit_length())]


def results_table(title: str, summary: Mapping[str, Any]) -> Table:
    """The summary: a row for all problems, and one for each data set and group."""
    samples = summary["samples"]
    largest = list(summary["pass_at_k"])[-1]
    names = [f"Average@{samples}", "95 % interval"]
    if samples > 1:
        names += [f"pass@{largest}", f"majority@{samples}"]
    table = Table(title=Text(title), box=SIMPLE_HEAD)
    table.add_column("")
    for name in (*names, "problems"):
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, scores: Mapping[str, Any]) -> None:
        low, high = scores["interval"]
        more = (scores["pass_at_k"][largest], scores["majority"]) if samples > 1 else ()
        table.add_row(
            Text(name),
            f"{100 * scores['accuracy']:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            *(f"{100 * x:.1f} %" for x in more),
            f"{scores['n']:,}",
        )

    row("all", summary)
    for part, scores in summary.get("sources", {}).items():
        row(part, scores)
    for part, scores in summary.get("groups", {}).items():
        row(f"group {part}", scores)
    if "mean_of_sources" in summary:
        mean = summary["mean_of_sources"]
        low, high = mean["interval"]
        table.add_row(
            "mean of the sets",
            f"{100 * mean['accuracy']:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
        )
    table.caption = (
        f"{summary['mean_length']:,.1f} tokens on average, "
        f"{100 * summary['truncation_rate']:.1f} % cut off; "
        f"{summary.get('timed_out', 0):,} comparisons timed out; "
        f"{summary['tokens']:,} tokens in {summary['seconds']:.1f} s"
    )
    return table
