"""The results as Markdown: targets first, then every measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.processes import Result
from experiments.bench.ratios import number, ratio, spread
from experiments.bench.targets import TARGETS, Target, find


def markdown(results: Sequence[Result], model: str, about: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
      about: hardware, versions and commit, as `describe.describe` gives them.
    """
    whats = list(dict.fromkeys(r.what for r in results))
    lines = [
        f"# {', '.join(whats)}: `{model}`",
        "",
        *_about(about),
        "",
        *targets_table(results, model),
    ]
    for what in whats:
        lines += ["", f"## {what}", "", *_measurements([r for r in results if r.what == what])]
    absent = [r for r in results if r.state != "done"]
    if absent:
        lines += ["", "## Not measured", ""]
        lines += [f"- {r.what}, {r.name}: {r.state}. {r.message}" for r in absent]
    return "\n".join([*lines, ""])


def _about(about: Mapping[str, Any]) -> list[str]:
    dirty = " with changes" if about["dirty"] else ""
    versions = ", ".join(f"{name} {v}" for name, v in sorted(about["versions"].items()))
    return [
        f"Commit `{about['commit']}`{dirty}. {about['cpu']}, {about['cores']} cores; device: "
        f"{about['device']}. {versions}."
    ]


def targets_table(results: Sequence[Result], model: str) -> list[str]:
    """A row for every target that the measurements have to do with."""
    whats = {r.what for r in results}
    lines = ["| what | | target | measured | |", "|---|---|---|---|---|"]
    for target in TARGETS:
        bound = target.bound_for(model)
        if target.what in whats and bound is not None:
            lines.append(_target_row(target, bound, [r for r in results if r.what == target.what]))
    return lines if len(lines) > 2 else []


def _target_row(target: Target, bound: float, results: Sequence[Result]) -> str:
    measured = target.measure(results)
    unit = f" {target.unit}" if target.unit else ""
    if measured is None:
        value, verdict = "-", "not measured"
    else:
        value = f"{measured}{unit}"
        missed = target.missed_by(measured.median, bound)
        verdict = f"missed by {100 * missed:.0f} %" if missed else "reached"
    sign = "<=" if target.at_most else ">="
    return f"| {target.what} | {target.text} | {sign} {number(bound)}{unit} | {value} | {verdict} |"


def _measurements(results: Sequence[Result]) -> list[str]:
    lines = [
        "| | seconds: median (range) | time, ours = 1 | tokens / s | first run, s | peak, MiB |",
        "|---|---|---|---|---|---|",
    ]
    ours = next((r for r in find(results, "ours") if r.seconds), None)
    for r in results:
        if r.state != "done":
            lines.append(f"| {r.name} | {r.state} | | | | |")
            continue
        seconds = spread(r.seconds) if r.seconds else None
        tokens = r.facts.get("tokens")
        cells = [
            r.name,
            f"{seconds}, {len(r.seconds)} runs" if seconds else "-",
            str(ratio(r.seconds, ours.seconds)) if seconds and ours else "-",
            number(tokens / seconds.median) if seconds and tokens else "-",
            "-" if r.first_seconds is None else number(r.first_seconds),
            "-" if r.peak_mib is None else number(r.peak_mib),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    facts = [
        f"- {r.name}: " + ", ".join(f"{k} = {_fact(v)}" for k, v in sorted(r.facts.items()))
        for r in results
        if r.facts
    ]
    return [*lines, "", *facts] if facts else lines


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_fact(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
