"""What a run left in its workdir, read once: for reports, comparisons and the terminal.

`results.json` of a run holds a score (as `experiments.evaluate.summary.summarize` makes it) for
each of `before`, `after` and `teacher`, and under `long` the same on longer problems. The `--out`
directory of `experiments.evaluate` holds a `results.json` that is one such score, and its
`settings`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from experiments.workdir.files import as_object, read_regular
from experiments.workdir.logs import METRICS, TRAJECTORIES, missing_updates, read_log
from experiments.workdir.outcome import ROLES, TEST_SETS, read_results
from experiments.workdir.run_config import CONFIG, read_run_config
from experiments.workdir.workdir import SAMPLES
from models.paths import local_path

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's directory, finished or going on.

    Attributes:
      config: as in config.json; empty for the output of `experiments.evaluate`.
      results: as in results.json; empty while there are none.
    """

    directory: Path
    config: dict[str, Any]
    results: dict[str, Any]

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl."""
        return read_log(self.directory / METRICS)

    @functools.cached_property
    def train(self) -> list[dict[str, Any]]:
        """What was logged of every update, in order; a warning says where updates are missing."""
        found = [r for r in self.metrics if r["kind"] == "train"]
        last = max((r["step"] for r in found), default=0)
        if problem := missing_updates(found, max(last, self.results.get("steps", 0))):
            log.warning("%s %s.", self.directory / METRICS, problem)
        return sorted(found, key=lambda r: r["step"])

    @functools.cached_property
    def all_trajectories(self) -> list[dict[str, Any]]:
        """Every line of trajectories.jsonl."""
        return read_log(self.directory / TRAJECTORIES)

    @functools.cached_property
    def trajectories(self) -> list[dict[str, Any]]:
        """The sampled trajectories that a monitor watched."""
        return [t for t in self.all_trajectories if t.get("values") and "breach" in t]

    @functools.cached_property
    def step_seconds(self) -> float | None:
        """The median time of an update; unlike sums, free of compilation."""
        seconds = [float(r["seconds"]) for r in self.train]
        return float(np.median(seconds)) if seconds else None

    @functools.cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """What was measured, by a label such as `after` or `after, longer problems`.

        Of a run that goes on, what its log holds already.
        """
        found: dict[str, dict[str, Any]] = {}
        if "accuracy" in self.results:
            settings = self.results.get("settings", {})
            data = settings.get("data", "data")
            sets = data if isinstance(data, str) else ", ".join(data)
            return {f"{settings.get('model', 'model')} on {sets}": self.results}
        for record in self.metrics:
            if record["kind"] == "evaluation":
                label = _label(record["name"], record["data"])
                found[label] = {k: v for k, v in record.items() if k not in ("step", "kind")}
        for role in ROLES:
            for data, scores in (("test", self.results), ("long", self.results.get("long") or {})):
                if scores.get(role):
                    found[_label(role, data)] = scores[role]
        order = [_label(role, data) for data in TEST_SETS for role in ROLES]
        known = [label for label in order if label in found]
        return {label: found[label] for label in [*known, *(x for x in found if x not in order)]}

    def samples(self, role: str, data: str) -> list[dict[str, Any]]:
        """Every graded sample of `before`, `after` or `teacher` on `test` or `long`."""
        path = self.directory / SAMPLES / f"{role}-{data}.jsonl"
        if not path.exists():
            return []
        found = []
        for number, line in enumerate(read_regular(path).splitlines(), start=1):
            where = f"{path}, line {number}"
            try:
                found.append(as_object(json.loads(line), where))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        return found


def _label(role: str, data: str) -> str:
    return role if data == "test" else f"{role}, longer problems"


def read_run(directory: str | Path) -> Run:
    """The run in a directory: a workdir, or what `experiments.evaluate --out` wrote.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: its config or results are not JSON.
    """
    path = local_path(directory, "workdir")
    results = read_results(path)
    if not (path / CONFIG).exists() and "accuracy" in (results or {}):
        return Run(path, {}, results or {})
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such directory.")
    config = read_run_config(path)
    return Run(path, config, results or {})
