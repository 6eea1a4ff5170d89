"""Studies without training: run directories that look like those of `experiments.train.loop`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.studies import motab

ENVIRONMENT = {
    "commit": "c0ffee",
    "dirty": False,
    "versions": {"python": "3.11.0", "jax": "0.10.0"},
    "device": "cpu",
    "device_count": 1,
}


def small_study(**fields: Any) -> ConfigDict:
    """OPD, SKD and MOTAB with two seeds, three learning rates and batches of one size."""
    study = motab.get_config("")
    study.tokens_per_update = 0
    for name in set(study.arms) - {"opd", "skd-08", "motab", "motab-gamma-1"}:
        del study.arms[name]
    study.references = ("opd", "skd-08")
    study.sweep, study.monitor = ("motab-gamma-1", "motab"), ("motab",)
    study.seeds, study.learning_rates = (0, 1), (3e-4, 1e-3, 3e-3)
    for name, value in fields.items():
        study[name] = value
    return study


def write_lines(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def samples(right: list[list[bool]], data: str = "test", text: str = "") -> list[dict]:
    """Graded samples of problems, a list of verdicts each."""
    return [
        {
            "id": f"chain/{data}/0/{index}",
            "sample": number,
            "problem": "a=3,b=+8,c=*4?",
            "text": text or "b=3+8=1.\n\nc=1*4=4.\n\n\\boxed{4}",
            "right": verdict,
        }
        for index, verdicts in enumerate(right)
        for number, verdict in enumerate(verdicts)
    ]


def write_run(
    directory: Path,
    config: Any,
    right: dict[tuple[str, str], list[list[bool]]] | None = None,
    validation: tuple[float, ...] = (0.5,),
    synthesis: dict | None = None,
    trajectories: list[dict] | None = None,
    text: str = "",
) -> None:
    """A finished run.

    Args:
      config: its config, or a dict.
      right: verdicts by (role, data), a list per problem.
      validation: accuracies, one per checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fields = config.to_dict() if hasattr(config, "to_dict") else config
    (directory / "config.json").write_text(json.dumps(fields))
    steps = fields.get("steps", 4)
    metrics: list[dict] = [
        {"step": s + 1, "kind": "train", "loss": 1.0, "seconds": 9.0 if s == 0 else 0.5}
        for s in range(steps)
    ]
    for number, accuracy in enumerate(validation, 1):
        step = steps * number // len(validation)
        metrics.append({"step": step, "kind": "validation", "accuracy": accuracy})
    for (role, data), verdicts in (right or {}).items():
        metrics.append({"step": steps, "kind": "evaluation", "name": role, "data": data})
        write_lines(directory / "samples" / f"{role}-{data}.jsonl", samples(verdicts, data, text))
    write_lines(directory / "metrics.jsonl", metrics)
    write_lines(directory / "trajectories.jsonl", trajectories or [])
    results = {
        "steps": steps,
        "loss_tokens": 1000,
        "train_seconds": 10.0,
        "wall_seconds": 20.0,
        "seed": fields.get("seed", 0),
        "synthesis": synthesis,
        **ENVIRONMENT,
    }
    (directory / "results.json").write_text(json.dumps(results))


class FakeTrainer:
    """Stands in for the training loop and notes what it was asked for.

    Args:
      validation: accuracy by (signal or method, learning rate); .5 for others.
      fails: config fields (seed, rate) are handed to it; true raises.
    """

    def __init__(self, validation=lambda config: (0.5,), fails=lambda config: False):
        self.validation, self.fails = validation, fails
        self.asked: list[tuple[str, ConfigDict]] = []

    def __call__(self, config: ConfigDict, directory: Path, console: Any) -> None:
        self.asked.append((f"{directory.parent.name}/{directory.name}", config))
        if self.fails(config):
            raise RuntimeError("no such luck")
        right = {}
        for data in ("test", "long"):
            if config.data[data].name:
                right["after", data] = [[(i + config.seed) % 3 > 0] for i in range(6)]
                right["before", data] = [[i % 2 > 0] for i in range(6)]
        write_run(directory, config, right, self.validation(config))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]
