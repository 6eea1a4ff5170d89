"""The page: what the template shows, gathered from runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from experiments.command.progress import duration
from experiments.report import panels
from experiments.report.picture import report_panels
from experiments.report.svg import inline_svg, page_color
from experiments.workdir.outcome import SOURCES
from experiments.workdir.results import Run
from experiments.workdir.workdir import flatten

_SMALL = (2.5, 1.8)


def make_page(runs: Sequence[Run], trajectories: int = 12, samples: int = 6) -> str:
    """The whole page. Whatever comes from a run is escaped.

    Args:
      runs: as `experiments.workdir.results.read_run` reads them.
      trajectories: sampled trajectories shown of a run.
      samples: graded samples shown of a run, after training: half of them wrong ones.

    Raises:
      ValueError: a number is negative.
    """
    if trajectories < 0 or samples < 0:
        raise ValueError(f"{trajectories=} and {samples=} must be 0 or more.")
    named = list(zip(_names([run.directory for run in runs]), runs, strict=True))
    trained = [(name, run) for name, run in named if run.config]
    several = len(trained) > 1
    labels = [(_label(name), run) for name, run in trained]
    return (
        _environment()
        .from_string(_read("page.html.j2"))
        .render(
            css=Markup(_read("page.css")),  # ours
            title=", ".join(name for name, _ in named),
            scores=_scores(named),
            pass_at=sorted(
                {k for run in runs for s in run.scores.values() for k in s.get("pass_at_k", {})},
                key=int,
            ),
            several=len(named) > 1,
            shared=_shared(labels) if several else [],
            colors=[
                page_color(panels.RUN_COLORS[i % len(panels.RUN_COLORS)])
                for i in range(len(trained))
            ],
            runs=[
                _run(name, run, number, trajectories, samples)
                for number, (name, run) in enumerate(trained)
            ],
            curves=[
                inline_svg(
                    functools.partial(panels.curve, runs=labels, name=metric, legend=False),
                    f"curve-{number}",
                    _SMALL,
                )
                for number, metric in enumerate(panels.metric_names([run for _, run in trained]))
            ],
            config=_configs(trained),
            sources=SOURCES,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * float(share):.1f}"
    environment.filters["number"] = _number
    environment.filters["duration"] = duration
    return environment


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _names(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [directory.resolve().parts for directory in directories]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _label(name: str) -> str:
    """A name that matplotlib shows as it is: no formula, and no hidden entry of a legend."""
    return name.replace("$", r"\$").lstrip("_") or "run"


def _shared(runs: Sequence[tuple[str, Run]]) -> list[Markup]:
    return [inline_svg(draw, f"shared-{name}") for name, draw in panels.shared_panels(runs)]


def _run(name: str, run: Run, number: int, trajectories: int, samples: int) -> dict[str, Any]:
    shown = [_trajectory(t) for t in _evenly(run.all_trajectories, trajectories)]
    drawn = report_panels(run.metrics, run.all_trajectories, run.results)
    if run.trajectories:
        drawn.append(functools.partial(panels.by_step, trajectories=run.trajectories))
    return {
        "name": name,
        "anchor": f"run-{number}",
        "facts": _facts(run),
        "versions": ", ".join(f"{k} {v}" for k, v in run.results.get("versions", {}).items()),
        "panels": [inline_svg(draw, f"run{number}-{i}") for i, draw in enumerate(drawn)],
        "tokens": _tokens(run),
        "trajectories": shown,
        # The first that says most is open from the start.
        "open": next((i for i, t in enumerate(shown) if t["flags"]), 0),
        "sampled": len(run.all_trajectories),
        "samples": _samples(run, samples),
        "finished": bool(run.results),
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    """What a reader asks first, by name."""
    results, config = run.results, run.config
    facts = [("method", str(config.get("method", "unknown")))]
    done = max((m["step"] for m in run.train), default=0)
    facts.append(("updates", f"{done:,} of {config.get('steps', '?')}"))
    if "seed" in config:
        facts.append(("seed", str(config["seed"])))
    for role in ("student", "teacher"):
        if "path" in config.get(role, {}):
            facts.append((role, str(config[role]["path"])))
    if "loss_tokens" in results:
        facts.append(("tokens trained on", f"{results['loss_tokens']:,}"))
    for key, label in (("wall_seconds", "wall time"), ("compile_seconds", "of which compiling")):
        if key in results:
            facts.append((label, duration(results[key])))
    synthesis = results.get("synthesis") or {}
    for key in ("backtracked", "dropped", "truncated", "accepted", "kept"):
        if key in synthesis:
            facts.append((key, f"{100 * float(synthesis[key]):.1f} %"))
    if "commit" in results:
        dirty = " with changes" if results.get("dirty") else ""
        facts.append(("commit", f"{str(results['commit'])[:12]}{dirty}"))
    if "device" in results:
        facts.append(("device", f"{results.get('device_count', 1)} x {results['device']}"))
    return facts


def _tokens(run: Run) -> list[dict[str, Any]]:
    """Tokens by who wrote them, with their shares in percent."""
    tokens = (run.results.get("synthesis") or {}).get("tokens", {})
    total = sum(tokens.values())
    return [
        {"source": source, "count": tokens[source], "share": 100 * tokens[source] / total}
        for source in SOURCES
        if tokens.get(source)
    ]


def _scores(runs: Sequence[tuple[str, Run]]) -> list[dict[str, Any]]:
    """A row per score and part of it; what was measured of all runs stands together."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, run in runs:
        for label, score in run.scores.items():
            for part, found in _parts(label, score):
                rows.setdefault(part, []).append({"run": name, "what": part, **_score(found)})
    return [row for part in rows.values() for row in part]


def _parts(label: str, score: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """A score; then those of its data sets and groups of problems, where it has several."""
    parts = [*(score.get("sources") or {}).items(), *(score.get("groups") or {}).items()]
    return [(label, score), *((f"{label}: {name}", found) for name, found in parts)]


def _score(score: Mapping[str, Any]) -> dict[str, Any]:
    low, high = map(float, score["interval"])
    return {
        "accuracy": float(score["accuracy"]),
        "low": low,
        "high": high,
        "n": score["n"],
        "samples": score.get("samples", 1),
        "mean_length": score.get("mean_length"),
        "truncation_rate": score.get("truncation_rate"),
        "majority": score.get("majority"),
        "pass_at_k": score.get("pass_at_k", {}),
    }


def _evenly(records: Sequence[Any], count: int) -> list[Any]:
    """`count` of the records, from the first to the last."""
    if len(records) <= count:
        return list(records)
    return [records[i] for i in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _trajectory(record: Mapping[str, Any]) -> dict[str, Any]:
    """Its parts, and a row per step that a monitor judged."""
    texts = record.get("steps") or []
    breach, root = record.get("breach", -1), record.get("root", -1)
    steps = []
    for index, (value, boundary) in enumerate(
        zip(record.get("values") or [], record.get("boundaries") or [], strict=False)
    ):
        steps.append(
            {
                "number": index + 1,
                "text": texts[index] if index < len(texts) else "",
                "value": float(value),
                "boundary": float(boundary),
                "breach": index == breach,
                "root": index == root,
            }
        )
    flags = []
    if breach >= 0:
        flags.append(f"breach at step {breach + 1}")
        flags.append(f"root at step {root + 1}")
    flags += [name for name in ("dropped", "truncated") if record.get(name)]
    return {
        "step": record["step"],
        "id": record.get("id", ""),
        "prompt": record.get("prompt", ""),
        "answer": record.get("answer", ""),
        "parts": record.get("parts", []),
        "steps": steps,
        "flags": flags,
    }


def _samples(run: Run, count: int) -> list[dict[str, Any]]:
    """Graded samples after training, wrong ones first: half of each where there are as many."""
    records = run.samples("after", "test")
    wrong = [r for r in records if not r["right"]]
    right = [r for r in records if r["right"]]
    few = min(len(wrong), max(count // 2, count - len(right)))
    return [*_evenly(wrong, few), *_evenly(right, count - few)]


def _configs(runs: Sequence[tuple[str, Run]]) -> list[dict[str, Any]]:
    """Every field of any config: its value in every run, and whether they differ."""
    flat = [flatten(run.config) for _, run in runs]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    rows = []
    for name in names:
        values = [fields.get(name, "—") for fields in flat]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def _number(value: Any) -> str:
    return f"{float(value):.3f}"
