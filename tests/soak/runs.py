"""A real run of seconds as a process of its own, and what it left on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.workdir.workdir import read_log, read_results

ROOT = Path(__file__).resolve().parents[2]
EVERY = 2
# MOTAB online: rollouts, teacher, update, validation and a checkpoint every other step.
FLAGS = {
    "batch_size": 4,
    "data.train.size": 32,
    "data.validation.size": 4,
    "data.test.size": 8,
    "data.long.name": "",
    "evaluation.batch_size": 8,
    "evaluation.max_tokens": 48,
    "motab.max_total": 64,
    "motab.max_correction": 32,
    "synthesis.sync_every": 3,
    "checkpoint.every": EVERY,
    "samples.every": 2,
}
# What a record holds of the clock and not of the run.
_CLOCK = ("seconds", "tokens_per_second")


def start(
    workdir: Path, steps: int, log: Path, more: Mapping[str, Any] = MappingProxyType({})
) -> subprocess.Popen:
    """The command, whose output is added to `log`; `more` are fields of its config."""
    fields = {**FLAGS, **more, "steps": steps}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "experiments.run", "--config", "configs/motab.py:online"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, *flags, "--workdir", str(workdir)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Signals to whoever started the soak are not for its runs.
            start_new_session=True,
        )


def finish(
    workdir: Path, steps: int, log: Path, more: Mapping[str, Any] = MappingProxyType({})
) -> int:
    """Runs the command to its end; returns its exit code."""
    process = start(workdir, steps, log, more)
    try:
        return process.wait(timeout=1800)
    finally:
        process.kill()


def whole_steps(workdir: Path) -> list[int]:
    """The steps whose checkpoint has its name, and so is whole."""
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def steps_logged(workdir: Path) -> list[int]:
    return [r["step"] for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "train"]


def resumed_at(log: Path) -> list[int]:
    """After which steps the processes went on, in order."""
    return [int(n) for n in re.findall(r"Resuming after step (\d+)", log.read_text("utf-8"))]


@dataclasses.dataclass(frozen=True)
class Ending:
    """What must not depend on how often a run was interrupted.

    Attributes:
      checksums: of every array of the final state: parameters, optimiser, rollout's weights.
      batches: where the data stand.
      metrics: every record of the log but its clock.
      scores: of students and teacher, on all data sets.
      samples: graded ones, text by text.
      trajectories: what was shown of those trained on.
    """

    checksums: dict[str, list[int]]
    batches: Any
    metrics: list[dict[str, Any]]
    scores: dict[str, Any]
    samples: dict[str, str]
    trajectories: list[dict[str, Any]]

    def differences(self, other: Ending) -> list[str]:
        """Names of what is not the same."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def ending(workdir: Path) -> Ending:
    """Reads what a finished run left."""
    results = read_results(workdir)
    assert results is not None, f"{workdir} has no results"
    final = whole_steps(workdir)[-1]
    run = json.loads((workdir / "checkpoints" / str(final) / "run" / "metadata").read_bytes())
    metrics = [
        {k: v for k, v in record.items() if k not in _CLOCK}
        for record in read_log(workdir / "metrics.jsonl")
    ]
    return Ending(
        checksums=run["checksums"],
        batches=run["run_state"]["batches"],
        metrics=metrics,
        scores={
            name: {k: v for k, v in (results[name] or {}).items() if k not in _CLOCK}
            for name in ("before", "after", "teacher")
        },
        samples={p.name: p.read_text("utf-8") for p in sorted(workdir.glob("samples/*"))},
        trajectories=read_log(workdir / "trajectories.jsonl"),
    )
