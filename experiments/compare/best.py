"""Measures the best checkpoint of a run on the test sets, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.checkpoints.checkpoints import restore_params
from experiments.config.data_sections import DataSets
from experiments.config.tree import Config
from experiments.data.sources import load_source
from experiments.evaluate.measure import measure
from experiments.pair.pair import load_pair, start_student
from experiments.workdir.outcome import TEST_SETS
from experiments.workdir.workdir import CHECKPOINTS, SAMPLES, plain, write_atomic

BEST = "best.json"


def measure_best(config: Config, data: DataSets, directory: Path) -> None:
    """Writes best.json, shaped like results.json, and samples as a run does.

    The student before training and the teacher are measured along with the best checkpoint.

    Args:
      config: of the finished run.
      data: the data sets, `test` and perhaps `long` among them.
      directory: of the run.
    """
    pair = load_pair(config)
    params, step = restore_params(directory / CHECKPOINTS, "best")
    models = {
        "before": pair.student(start_student(pair, config.seed)),
        "after": pair.student(params),
    }
    if pair.teacher is not None:
        models["teacher"] = pair.teacher
    measured: dict[str, dict[str, Any]] = {}
    for name, settings in data.measured().items():
        if name not in TEST_SETS:
            continue
        examples = list(load_source(settings.spec, needs_answer=True))
        for role, model in models.items():
            summary, samples = measure(config, pair, model, examples, as_teacher=role == "teacher")
            measured.setdefault(name, {})[role] = summary
            (directory / SAMPLES).mkdir(exist_ok=True)
            lines = "".join(json.dumps(plain(sample)) + "\n" for sample in samples)
            write_atomic(directory / SAMPLES / f"{role}-{name}.jsonl", lines.encode())
    results = {"best_step": step, **measured.get("test", {}), "long": measured.get("long", {})}
    write_atomic(directory / BEST, (json.dumps(plain(results), indent=2) + "\n").encode())
