"""The numbers of a study, from its finished runs: what table.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.arms import Plan, selection_directory
from experiments.compare.selection import choose
from experiments.compare.settings import Study
from experiments.compare.table.correction import self_correction
from experiments.compare.table.exposure import exposure
from experiments.compare.table.gather import Finished, paired, read_runs, right_shares
from experiments.compare.table.monitor import monitor
from experiments.compare.table.windows import windows
from experiments.evaluate.intervals import crossed_bootstrap
from experiments.workdir.outcome import SOURCES, TEST_SETS
from experiments.workdir.workdir import METRICS

# Shares of trajectories (of the student's steps: accepted) that some methods log.
SHARES = ("backtracked", "dropped", "accepted", "kept", "reward", "truncated")


def make_table(plan: Plan, workdir: Path) -> dict[str, Any]:
    """Everything that is known of the arms with at least one finished run.

    Returns:
      `arms`: by name, see `_arm`; `start` and `teacher`: accuracies of the student before training
      and of the teacher; `same_start`: whether every run of a seed began with the same answers.

    Raises:
      ValueError: runs were measured on different problems.
    """
    study = plan.study
    runs = read_runs(study, workdir)
    arms = {name: _arm(study, name, found) for name, found in runs.items()}
    for name, row in arms.items():
        row["differences"] = {
            reference: {data: _difference(runs[name], runs[reference], data) for data in TEST_SETS}
            for reference in study.references
            if reference in runs and reference != name
        }
        row["selection"] = _selection(plan, workdir, name)
    # One run per seed: start and teacher are the same for all arms.
    first = list({run.seed: run for found in runs.values() for run in reversed(found)}.values())
    return {
        "arms": arms,
        "start": {data: _accuracy(first, "before", data) for data in TEST_SETS},
        "teacher": {data: _accuracy(first, "teacher", data) for data in TEST_SETS},
        "same_start": _same_start([run for found in runs.values() for run in found]),
        "start_correction": _correction(study, first, "before"),
    }


def _arm(study: Study, name: str, runs: Sequence[Finished]) -> dict[str, Any]:
    """Accuracies, costs, what it trained on, exposure, windows, the monitor, and self-correction.

    Costs are means over seeds. `tokens` are those trained on, by who wrote them.
    """
    results = [run.results for run in runs]
    fields = runs[0].config
    synthesis = [r["synthesis"] for r in results if r.get("synthesis")]
    sources = {source for s in synthesis for source in s.get("tokens", {})}
    return {
        "label": study.label(name),
        "method": fields.get("method"),
        "seeds": [run.seed for run in runs],
        "accuracy": {data: _accuracy(runs, "after", data) for data in TEST_SETS},
        "updates": _mean(results, "steps"),
        "batch_size": fields.get("batch_size"),
        "loss_tokens": _mean(results, "loss_tokens"),
        "step_seconds": _mean([{"s": run.step_seconds} for run in runs], "s"),
        "train_seconds": _mean(results, "train_seconds"),
        "wall_seconds": _mean(results, "wall_seconds"),
        "best_step": [r["best_step"] for r in results if "best_step" in r],
        "learning_rate": fields.get("optimizer", {}).get("learning_rate"),
        "gamma_0": fields.get("motab", {}).get("gamma_0"),
        "trajectories": _mean(synthesis, "trajectories"),
        "shares": {name: _mean(synthesis, name) for name in SHARES},
        "tokens": {
            source: float(np.mean([s.get("tokens", {}).get(source, 0) for s in synthesis]))
            for source in [*(s for s in SOURCES if s in sources), *sorted(sources - {*SOURCES})]
        },
        "exposure": exposure([run.train for run in runs]),
        "windows": windows([run.train for run in runs]),
        "monitor": monitor([t for run in runs for t in run.trajectories]),
        "correction": _correction(study, runs, "after"),
    }


def _accuracy(runs: Sequence[Finished], role: str, data: str) -> dict[str, Any] | None:
    """Mean over seeds and problems, with the crossed bootstrap's interval."""
    values_SxP = right_shares(runs, role, data)
    if values_SxP is None:
        return None
    return _interval(values_SxP) | {
        "by_seed": values_SxP.mean(axis=1).tolist(),
        "problems": values_SxP.shape[1],
    }


def _difference(
    runs: Sequence[Finished], reference: Sequence[Finished], data: str
) -> dict[str, Any] | None:
    """Mean difference on the same seeds and problems, with its interval."""
    both = paired(runs, reference, data)
    if both is None:
        return None
    return _interval(both[0] - both[1]) | {"seeds": len(both[0])}


def _interval(values_SxP: np.ndarray) -> dict[str, Any]:
    interval = crossed_bootstrap(values_SxP)
    return {"mean": interval.mean, "interval": [interval.low, interval.high]}


def _selection(plan: Plan, workdir: Path, arm: str) -> dict[str, Any] | None:
    """Validation accuracy by learning rate; None where there was no choice, or it is gone."""
    directories = [selection_directory(workdir, arm, rate) for rate in plan.rates]
    if len(plan.rates) == 1 or not all((d / METRICS).exists() for d in directories):
        return None
    choice = choose(plan, workdir, arm)
    by_rate = {f"{rate:g}": accuracy for rate, accuracy in choice.accuracies.items()}
    return {"rate": choice.rate, "validation": by_rate, "at_end": choice.at_end}


def _same_start(runs: Sequence[Finished]) -> bool:
    """Whether all runs of a seed gave the same answers before training."""
    by_seed: dict[int, list[dict[str, float]]] = {}
    for run in runs:
        shares = run.shares("before", "test")
        if shares:
            by_seed.setdefault(run.seed, []).append(shares)
    return all(found == group[0] for group in by_seed.values() for found in group)


def _correction(study: Study, runs: Sequence[Finished], role: str) -> dict[str, Any] | None:
    """Self-correction on the test set; None where the study names no text that announces it."""
    if not study.revision_text:
        return None
    samples = [sample for run in runs for sample in run.samples(role, "test")]
    return self_correction(samples, study.revision_text)


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [float(r[name]) for r in records if r.get(name) is not None]
    return float(np.mean(values)) if values else None
