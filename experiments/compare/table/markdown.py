"""table.md: a study for people, aligned for a terminal and well-formed on GitHub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.compare.table.study import SHARES

NONE = "—"


def make_markdown(table: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The whole of table.md.

    Args:
      table: as in table.json. Someone may have added `remarks` to it, by arm.
      pictures: names of the files to show.
    """
    study = table["study"]
    parts = [
        f"# {study['title']}",
        _header(table),
        "## Problems as long as those trained on",
        _accuracies(table, "test"),
        "## Longer problems",
        _accuracies(table, "long"),
        "## Costs, per run",
        _costs(table),
        "## Trajectories",
        _trajectories(table),
        *_section("Exposure", _exposure(table)),
        *_section("Near futures", _windows(table)),
        *_section("What the monitor saw", _monitor(table)),
        *_section("Self-correction", _correction(table)),
        "## Learning rates",
        _selection(table),
    ]
    if table["missing"]:
        missing = [f"- `{name}`: {_one_line(why)}" for name, why in table["missing"].items()]
        parts += ["## Missing", "\n".join(missing)]
    if not table["same_start"]:
        parts.append("**Runs of one seed began with students that answer differently.**")
    parts += remarks(table, list(table["arms"]))
    parts += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def remarks(table: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    """What a reader must know of some of these arms: `remarks` of table.json, written by hand."""
    written = table.get("remarks", {})
    return [f"**{_label(table, arm)}**: {written[arm]}" for arm in arms if arm in written]


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _header(table: Mapping[str, Any]) -> str:
    study, environment = table["study"], table["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    rates = ", ".join(f"{rate:g}" for rate in study["learning_rates"])
    several = len(study["learning_rates"]) > 1
    lines = [
        f"Command: `{table['command'] or 'unknown'}`",
        f"Commit: {', '.join(environment['commits'])}",
        f"Hardware: {environment['hardware']}",
        f"Versions: {versions}",
        f"Time: {duration(environment['run_seconds'])} for all runs together; this call took "
        f"{duration(environment['call_seconds'])}",
        f"Every arm: {study['updates']} updates from the same student, of "
        + (
            f"about {study['tokens_per_update']:g} tokens that train. The batch size is fitted to "
            "what the arm's initial student writes"
            if study["tokens_per_update"]
            else f"{study['batch_size']} trajectories"
        ),
        (
            f"Learning rate: for each arm the best of {rates} on validation with seed "
            f"{study['selection_seed']}, and of equally good ones the lowest. No test set was used "
            "before all rates were chosen"
            if several
            else f"Learning rate: {rates}"
        ),
        f"Checkpoint: {study['checkpoint']}"
        + (" on validation" if study["checkpoint"] == "best" else "")
        + ". Each run measures the test sets once",
        "Intervals: 95 %, by a bootstrap over seeds and problems, crossed; with one seed, over "
        "problems only. Differences are paired by seed and problem",
    ]
    return "\n".join(f"- {line}." for line in lines)


def _accuracies(table: Mapping[str, Any], data: str) -> str:
    references = table["study"]["references"]
    heads = ["arm", "seeds", "accuracy %", "95 %"]
    heads += [f"minus {_label(table, name)}" for name in references]
    blank = [NONE] * len(references)
    rows = []
    for role in ("start", "teacher"):
        if found := table[role][data]:
            label = "student before" if role == "start" else "teacher"
            rows.append([label, str(len(found["by_seed"])), *estimate(found), *blank])
    for row in table["arms"].values():
        found = row["accuracy"][data]
        differences = [row["differences"].get(name, {}).get(data) for name in references]
        rows.append(
            [
                row["label"],
                str(len(row["seeds"])),
                *(estimate(found) if found else (NONE, NONE)),
                *(_signed(d) for d in differences),
            ]
        )
    return aligned(heads, rows)


def _costs(table: Mapping[str, Any]) -> str:
    heads = [
        "arm",
        "updates",
        "trajectories per update",
        "loss tokens",
        "s per update",
        "training s",
        "all s",
        "learning rate",
    ]
    rows = [
        [
            row["label"],
            _number(row["updates"], "{:.0f}"),
            _number(row["batch_size"], "{:.0f}"),
            _number(row["loss_tokens"], "{:,.0f}"),
            _number(row["step_seconds"], "{:.3f}"),
            _number(row["train_seconds"], "{:.1f}"),
            _number(row["wall_seconds"], "{:.1f}"),
            _number(row["learning_rate"], "{:g}"),
        ]
        for row in table["arms"].values()
    ]
    note = (
        "Seconds per update are a median. Training includes compilation, most of it in an arm's "
        "first run. All includes synthesis and measurement as well."
    )
    return f"{note}\n\n{aligned(heads, rows)}"


def _trajectories(table: Mapping[str, Any]) -> str:
    rows = []
    logged = [row for row in table["arms"].values() if row["trajectories"] is not None]
    names = [n for n in SHARES if any(row["shares"][n] is not None for row in logged)]
    for row in logged:
        tokens = ", ".join(f"{s} {_short(n)}" for s, n in row["tokens"].items() if n)
        shares = [_percent(row["shares"][name]) for name in names]
        rows.append([row["label"], f"{row['trajectories']:,.0f}", tokens or NONE, *shares])
    if not rows:
        return "No arm says what it trained on."
    heads = ["arm", "trajectories", "tokens by source", *(f"{name} %" for name in names)]
    note = (
        "What one run trained on, counting repetitions. Accepted is a share of the student's "
        "steps. "
        "The other shares are of trajectories, and reward is their mean."
    )
    return f"{note}\n\n{aligned(heads, rows)}"


def _exposure(table: Mapping[str, Any]) -> str:
    heads = [
        "arm",
        "a first",
        "a last",
        "mismatch first",
        "mismatch last",
        "disagreement % last",
        "Beta at the end",
        "decisions",
        "policy updates",
    ]
    rows = []
    for row in table["arms"].values():
        if (seen := row["exposure"]) is None:
            continue
        learned = seen["beta_a"] is not None
        rows.append(
            [
                row["label"],
                *(_number(seen[f"exposure_{x}"], "{:.2f}") for x in ("first", "last")),
                *(_number(seen[f"mismatch_{x}"], "{:.4f}") for x in ("first", "last")),
                _percent(seen["disagreement_last"]),
                f"{seen['beta_a']:.2f}, {seen['beta_b']:.2f}" if learned else NONE,
                _number(seen["decisions_completed"], "{:.0f}"),
                _number(seen["controller_updates"], "{:.0f}"),
            ]
        )
    note = (
        "Means over the first and the last third of the updates: exposure a; mismatch, the KL "
        "between exposed teacher and student in nats per token; and the share of tokens where "
        "their "
        "likeliest tokens differ."
    )
    return f"{note}\n\n{aligned(heads, rows)}" if rows else ""


def _windows(table: Mapping[str, Any]) -> str:
    heads = [
        "arm",
        "windows per update",
        "D_OT first",
        "D_OT last",
        "low-loss first",
        "low-loss last",
        "guided % first",
        "guided % last",
        "L_traj first",
        "L_traj last",
        "capped",
        "gradients",
    ]
    rows = []
    for row in table["arms"].values():
        if (seen := row.get("windows")) is None:
            continue
        ends = ("first", "last")
        rows.append(
            [
                row["label"],
                _number(seen["windows"], "{:.1f}"),
                *(_number(seen[f"distance_{x}"], "{:.3f}") for x in ends),
                *(_number(seen[f"low_distance_{x}"], "{:.3f}") for x in ends),
                *(_percent(seen[f"high_{x}"]) for x in ends),
                *(_number(seen[f"trajectory_{x}"], "{:.3f}") for x in ends),
                _number(seen["capped"], "{:.1f}"),
                _number(seen["gradient_ratio"], "{:.3f}"),
            ]
        )
    note = (
        "Means over the first and the last third of the updates: D_OT at candidates and at "
        "low-loss "
        "positions; the share of windows above the threshold; L_traj in nats. Capped counts tokens "
        "per update. Gradients is |lambda grad L_traj| / |grad L_OPD|."
    )
    return f"{note}\n\n{aligned(heads, rows)}" if rows else ""


def _monitor(table: Mapping[str, Any]) -> str:
    heads = ["arm", "gamma_0", "sampled", "breached", "breach step", "depth", "V"]
    rows = [
        [
            row["label"],
            _number(row["gamma_0"], "{:g}"),
            str(seen["sampled"]),
            str(seen["breached"]),
            _number(seen["breach_step_mean"], "{:.2f}"),
            _number(seen["depth_mean"], "{:.2f}"),
            _number(seen["v_mean"], "{:.3f}"),
        ]
        for row in table["arms"].values()
        if (seen := row["monitor"]) is not None
    ]
    if not rows:
        return ""
    note = "Means over sampled trajectories: the breaching step, counted from 1; depth; and V."
    return f"{note}\n\n{aligned(heads, rows)}"


def _correction(table: Mapping[str, Any]) -> str:
    heads = [
        "arm",
        "answers",
        "revised %",
        "right if revised %",
        "right if not %",
        "wrong before %",
        "repaired %",
        "kept %",
    ]
    named = {"student before": table["start_correction"]}
    named |= {row["label"]: row["correction"] for row in table["arms"].values()}
    rows = [
        [
            label,
            str(found["samples"]),
            *(
                _percent(found[share])
                for share in (
                    "revised",
                    "right_if_revised",
                    "right_if_not",
                    "wrong_before",
                    "repaired",
                    "kept",
                )
            ),
        ]
        for label, found in named.items()
        if found
    ]
    if not rows:
        return ""
    note = (
        f"Revised: the share of answers that contain `{table['study']['revision_text']}`. Wrong "
        "before: of these, the share whose last step before it was wrong, which only the embedded "
        "task can tell. Repaired: of those wrong before, the share that ends right. Kept: of the "
        "others, the share that ends right."
    )
    return f"{note}\n\n{aligned(heads, rows)}"


def _selection(table: Mapping[str, Any]) -> str:
    rates = [f"{rate:g}" for rate in table["study"]["learning_rates"]]
    rows = []
    for row in table["arms"].values():
        if row["selection"]:
            validation = row["selection"]["validation"]
            chosen = f"{row['selection']['rate']:g}" + (
                ", an end of the grid" if row["selection"]["at_end"] else ""
            )
            rows.append([row["label"], *(_percent(validation.get(r)) for r in rates), chosen])
    if not rows:
        return "There was one, so none was chosen."
    return aligned(["arm", *(f"validation % at {r}" for r in rates), "chosen"], rows)


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up: the first to the left, the others to the right."""
    safe = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in safe
    ]
    rule = [("-" * (width + 1) + ":") if i else "-" * (width + 2) for i, width in enumerate(widths)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _label(table: Mapping[str, Any], arm: str) -> str:
    return table["study"]["labels"][arm]


def estimate(found: Mapping[str, Any]) -> tuple[str, str]:
    """Mean and interval, in per cent."""
    low, high = found["interval"]
    return f"{100 * found['mean']:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"


def _signed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NONE
    low, high = found["interval"]
    return f"{100 * found['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _short(count: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return f"{count:.0f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
