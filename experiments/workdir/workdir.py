"""A run's directory: its config, its growing logs, its results, and the lock that guards them.

    config.json         the run's config metrics.jsonl       one line per logged step
    trajectories.jsonl  a readable sample of what was trained on samples/            every graded
    sample of an evaluation, a file each results.json        the outcome checkpoints/        see
    `experiments.checkpoints.checkpoints` report.png          see `experiments.report.picture`
    tensorboard/, wandb/  see `experiments.workdir.tracking`; profile/, see
    `experiments.machine.profiler`

Every line of a `.jsonl` file is strict JSON: a number that is not finite is written as the string
"nan", "inf" or "-inf", which `float()` reads back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.checkpoints.files import checkpoint_steps
from experiments.workdir.files import plain, read_regular, write_atomic, write_json
from experiments.workdir.lock import LOCK, Lock
from experiments.workdir.logs import METRICS, TRAJECTORIES, Log, missing_updates, read_log
from experiments.workdir.outcome import RESULTS, read_results
from experiments.workdir.run_config import (
    CONFIG,
    changes,
    config_dict,
    config_differences,
    flatten,
    identity,
    read_run_config,
)
from experiments.workdir.tracking import Trackers
from models.paths import local_path

CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
REPORT = "report.png"
# Folders that may be there before there is a result.
_OBSERVED = ("tensorboard", "wandb", "profile")
__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "LOCK",
    "METRICS",
    "REPORT",
    "RESULTS",
    "SAMPLES",
    "TRAJECTORIES",
    "Workdir",
    "config_differences",
    "flatten",
    "plain",
    "read_log",
    "read_results",
    "read_run_config",
    "write_atomic",
]


class Workdir:
    """A run's directory, open for writing by this process alone.

    Use as a context manager, or call `close`; the lock also goes when the process ends, however it
    ends. Where a run ends before its first result, nothing of it stays.

    Args:
      path: the directory; made if it is not there.
      config: the run's config, an `ml_collections.ConfigDict` or a nested dict of JSON values.

    Attributes:
      identity: a digest of the config but for the fields that a resumed run may change.
      changed: what a resumed run changes of its config, a line each; see `run_config.changes`.
      problems: what is missing of the logs and samples up to the checkpoint gone on from.
      tracker: is told what is logged, once it is on disk; None for nobody.

    Raises:
      ValueError: the directory holds a run of another config (each differing field is named), or
        the remains of a run without its config; or the path has a scheme.
      RuntimeError: another process, or another `Workdir` of this one, is writing here.
      TypeError: a field of the config is not JSON.
      OSError: the file system refused.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any):
        self.path = local_path(path, "workdir").resolve()
        self.changed: list[str] = []
        self._begin()
        self._fields = config_dict(config)
        self.identity = identity(self._fields)
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: Lock | None = Lock(self.path)
        # A forked child shares the lock and would hold it past this process's death.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _let_go(this()))
        try:
            self._open_config()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self.tracker: Trackers | None = None
        self.problems: list[str] = []
        self._new = False
        self._samples: dict[str, str] = {}
        self._metrics, self._trajectories = Log(self.path / METRICS), Log(self.path / TRAJECTORIES)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints go; absolute, as orbax wants it."""
        return self.path / CHECKPOINTS

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line: `step`, `kind` (train, validation or evaluation) and numbers."""
        self._check_lock()
        self._metrics.append([record])
        if self.tracker is not None:
            self.tracker.log(record)

    def append_trajectories(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds one line per sampled trajectory; each carries the `step` that drew it."""
        lines = list(records)
        self._check_lock()
        self._trajectories.append(lines)
        if self.tracker is not None:
            self.tracker.log_trajectories(lines)

    def mark(self) -> dict[str, Any]:
        """What was logged so far, for the checkpoint that is about to be written; JSON.

        The logs are on the disk from here on.
        """
        return {
            METRICS: self._metrics.mark(),
            TRAJECTORIES: self._trajectories.mark(),
            SAMPLES: dict(self._samples),
            "problems": list(self.problems),
        }

    def cut_back(self, step: int, mark: Mapping[str, Any] | None = None) -> list[str]:
        """Forgets every line logged after a checkpoint, which is being resumed.

        Also drops a last line torn by a kill.

        Args:
          step: of the checkpoint. Without one pass -1, which empties the logs.
          mark: what `mark` gave for it; None goes by the steps of the lines.

        Returns:
          What is missing, or is not what was written, up to that step; `problems` then has it too.
        """
        mark = mark or {}
        self._set_results_aside()
        self._samples = dict(mark.get(SAMPLES, {}))
        found = [
            self._metrics.cut_back(step, mark.get(METRICS)),
            self._trajectories.cut_back(step, mark.get(TRAJECTORIES)),
            *self._changed_samples(),
        ]
        new = [problem for problem in found if problem]
        self.problems = list(dict.fromkeys([*mark.get("problems", []), *new]))
        return new

    def check_logs(self, steps: int) -> list[str]:
        """What is missing at the end of a run of so many steps; `problems` then has it too."""
        for file in (self._metrics, self._trajectories):
            if not file.fits(file.mark()):
                absent = ""
                if file is self._metrics:
                    absent = missing_updates(read_log(file.path), steps)
                self.problems.append(f"{file.path.name} {absent or 'is not what was written'}")
        self.problems = list(dict.fromkeys([*self.problems, *self._changed_samples()]))
        return self.problems

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json: wholly, or not at all."""
        self._check_lock()
        write_json(self.path / RESULTS, results)

    def write_samples(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes samples/NAME.jsonl, one line per sample: wholly, or not at all."""
        self._check_lock()
        directory = self.path / SAMPLES
        directory.mkdir(exist_ok=True)
        lines = "".join(json.dumps(plain(record)) + "\n" for record in records).encode("utf-8")
        write_atomic(directory / f"{name}.jsonl", lines)
        self._samples[name] = _digest(lines)

    def finished(self) -> dict[str, Any] | None:
        """The results, where the run of this config has come to its end; None where it goes on.

        Raises:
          ValueError: results.json is damaged, or of another run.
        """
        results = read_results(self.path)
        if results is None:
            return None
        for name in ("seed", "steps"):
            here, there = self._fields.get(name), results.get(name)
            if here is None or there is None or here == there:
                continue
            if name == "steps" and there < here:
                return None
            raise ValueError(
                f"{self.path / RESULTS} is of another run: it says {name}={there}, and {CONFIG} "
                f"{here}. Remove it; the same command then goes on from the latest checkpoint."
            )
        return results

    def close(self) -> None:
        """Lets the next writer in. Of a run that has no result yet, nothing stays."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._new and not self._remains():
            self._clean_up()
        lock.release()

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _open_config(self) -> None:
        path = self.path / CONFIG
        remains = self._remains()
        if remains and not path.exists():
            raise ValueError(
                f"{self.path} holds {', '.join(remains)} but no {CONFIG}, so what ran there is "
                "unknown. Use another --workdir."
            )
        if remains or (path.exists() and self._has_folders()):
            done = max(checkpoint_steps(self.checkpoints), default=0)
            self.changed, refused = changes(read_run_config(self.path), self._fields, done)
            if refused:
                raise ValueError(
                    f"{self.path} holds a run with another config:\n  "
                    + "\n  ".join(refused)
                    + "\nUse another --workdir, or the config of that run to resume it."
                )
            if self.changed:
                write_json(path, self._fields)
            return
        # What an earlier start left that came to nothing is in nobody's way.
        self._new = True
        write_json(path, self._fields)

    def _remains(self) -> list[str]:
        """Files that only a run which came to something has."""
        files = [x for x in (METRICS, TRAJECTORIES, RESULTS) if os.path.lexists(self.path / x)]
        folders = [self.path / name for name in (CHECKPOINTS, SAMPLES)]
        return files + [p.name for p in folders if p.is_dir() and any(p.iterdir())]

    def _has_folders(self) -> bool:
        """Whether runs of a study's arms lie in the directory."""
        folders = (p for p in self.path.iterdir() if p.is_dir() and p.name not in _OBSERVED)
        return any(any(folder.iterdir()) for folder in folders)

    def _clean_up(self) -> None:
        """Removes what the opening made, if nothing else is there."""
        ours = {CONFIG, LOCK, CHECKPOINTS, SAMPLES}
        if any(p.name not in ours for p in self.path.iterdir()):
            return
        with contextlib.suppress(OSError):
            for name in (CHECKPOINTS, SAMPLES):
                if (self.path / name).exists():
                    (self.path / name).rmdir()
            for name in (CONFIG, LOCK):
                (self.path / name).unlink(missing_ok=True)
            for folder in self._made:
                folder.rmdir()

    def _set_results_aside(self) -> None:
        """A run that goes on has no results yet; those of fewer steps stay under another name."""
        path = self.path / RESULTS
        if path.exists():
            results = read_results(self.path) or {}
            path.rename(path.with_name(f"results-{results.get('steps', 'before')}.json"))

    def _changed_samples(self) -> list[str]:
        found = []
        for name, digest in self._samples.items():
            path = self.path / SAMPLES / f"{name}.jsonl"
            if not path.is_file():
                found.append(f"{SAMPLES}/{path.name} is missing")
            elif _digest(read_regular(path)) != digest:
                found.append(f"{SAMPLES}/{path.name} is not what was written")
        return found

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()


def _let_go(run: Workdir | None) -> None:
    """In a forked child: without a word about the directory, which is its parent's."""
    if run is not None and run._lock is not None:
        lock, run._lock = run._lock, None
        lock.release()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
