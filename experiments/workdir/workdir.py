"""A run's directory: its config, its growing logs, its results, and the lock that guards them.

    config.json         the run's config, written once
    metrics.jsonl       one line per logged step
    trajectories.jsonl  a readable sample of what was trained on
    samples/            every graded sample of an evaluation, a file each
    results.json        the outcome
    checkpoints/        see `experiments.checkpoints.checkpoints`
    report.png          see `experiments.report.picture`
    tensorboard/, wandb/  see `experiments.workdir.tracking`; profile/, see `experiments.machine.profiler`

Every line of a `.jsonl` file is strict JSON: a number that is not finite is written as the string
"nan", "inf" or "-inf", which `float()` reads back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.workdir.tracking import Trackers

CONFIG = "config.json"
METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
RESULTS = "results.json"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
REPORT = "report.png"
LOCK = "lock"

# Fields by which a resumed run may differ: where arrays lie, and not what is learnt.
LAYOUT = ("mesh.", "student.rules.", "teacher.rules.", "optimizer.micro_batches:")

log = logging.getLogger(__name__)


class Workdir:
    """A run's directory, open for writing by this process alone.

    Use as a context manager, or call `close`; the lock also goes when the process ends, however it
    ends.

    Args:
      path: the directory; made if it is not there.
      config: the run's config, an `ml_collections.ConfigDict` or a nested dict of JSON values.

    Attributes:
      tracker: is told what is logged, once it is on disk; None for nobody.

    Raises:
      ValueError: the directory holds a run of another config (each differing field is named; the
        mesh may be another), or the remains of a run without its config.
      RuntimeError: another process, or another `Workdir` of this one, is writing here.
      TypeError: a field of the config is not JSON.
      OSError: the file system refused.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any):
        self.path = Path(path).expanduser().resolve()
        self.tracker: Trackers | None = None
        fields = json.loads(json.dumps(_config_dict(config)))
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = _take_lock(self.path / LOCK)
        # A forked child shares the lock and would hold it past this process's death.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close(this()))
        try:
            self._open_config(fields)
        except BaseException:
            self.close()
            raise

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints go; absolute, as orbax wants it."""
        return self.path / CHECKPOINTS

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line: `step`, `kind` (train, validation or evaluation) and numbers."""
        _append(self.path / METRICS, [record])
        if self.tracker is not None:
            self.tracker.log(record)

    def append_trajectories(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds one line per sampled trajectory; each carries the `step` that drew it."""
        lines = list(records)
        _append(self.path / TRAJECTORIES, lines)
        if self.tracker is not None:
            self.tracker.log_trajectories(lines)

    def cut_back(self, step: int) -> None:
        """Forgets every line logged after `step`, the step of the checkpoint being resumed.

        Also drops a last line torn by a kill. Without a checkpoint pass -1, which empties the logs.
        """
        for name in (METRICS, TRAJECTORIES):
            path = self.path / name
            if path.exists():
                kept = b"".join(line for line, record in _lines(path) if record["step"] <= step)
                write_atomic(path, kept)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes results.json: wholly, or not at all."""
        write_atomic(
            self.path / RESULTS, (json.dumps(plain(results), indent=2) + "\n").encode("utf-8")
        )

    def write_samples(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes samples/NAME.jsonl, one line per sample: wholly, or not at all."""
        directory = self.path / SAMPLES
        directory.mkdir(exist_ok=True)
        lines = "".join(json.dumps(plain(record)) + "\n" for record in records)
        write_atomic(directory / f"{name}.jsonl", lines.encode("utf-8"))

    def close(self) -> None:
        """Lets the next writer in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _open_config(self, fields: dict[str, Any]) -> None:
        path = self.path / CONFIG
        if path.exists():
            differences = [
                line
                for line in config_differences(read_config(self.path), fields)
                if not line.startswith(LAYOUT)
            ]
            if differences:
                raise ValueError(
                    f"{self.path} holds a run with another config:\n  "
                    + "\n  ".join(differences)
                    + "\nUse another --workdir, or the config of that run to resume it."
                )
            return
        remains = [n for n in (METRICS, RESULTS, CHECKPOINTS) if (self.path / n).exists()]
        if remains:
            raise ValueError(
                f"{self.path} holds {', '.join(remains)} but no {CONFIG}, so what ran there is "
                "unknown. Use another --workdir."
            )
        write_atomic(path, (json.dumps(fields, indent=2) + "\n").encode("utf-8"))


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of the run in a workdir.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: its config.json is not JSON.
    """
    file = Path(path).expanduser() / CONFIG
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not a run's directory: it has no {CONFIG}.") from None
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error


def read_results(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The results of the run in a workdir, or None while there are none."""
    file = Path(path).expanduser() / RESULTS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a `.jsonl` file; none if there is no file. A torn last line is left out."""
    return [record for _, record in _lines(Path(path))] if Path(path).exists() else []


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per field that differs, dotted, with both values."""
    before, after = flatten(old), flatten(new)
    names = list(before) + [name for name in after if name not in before]
    return [
        f"{name}: {before.get(name, 'absent')} in the workdir, {after.get(name, 'absent')} now"
        for name in names
        if before.get(name) != after.get(name)
    ]


def plain(value: Any) -> Any:
    """`value` as strict JSON: arrays as lists, numbers that are not finite as strings.

    Raises:
      TypeError: something in it has no JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form.")


def write_atomic(path: Path, content: bytes) -> None:
    """Puts `content` in place of `path`; whoever reads finds the old file or the new one.

    Raises:
      OSError: it could not be written, and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}); it is as it was before",
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    _sync_directory(path.parent)


def _append(path: Path, records: list[Mapping[str, Any]]) -> None:
    """Adds lines to a log, all of them or, where the disk is full, none."""
    for record in records:
        if not isinstance(plain(record.get("step")), int):
            raise ValueError(f"A record of {path.name} needs an integer step: {dict(record)}.")
    content = b"".join(
        json.dumps(plain(record), allow_nan=False).encode("utf-8") + b"\n" for record in records
    )
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = _end_of_whole_lines(handle)
        try:
            written = 0
            while written < len(content):
                written += os.write(handle, content[written:])
        except OSError as error:
            os.ftruncate(handle, size)
            raise OSError(
                error.errno, f"{path} could not be written to ({error.strerror}); nothing was added"
            ) from error
    finally:
        os.close(handle)


def _end_of_whole_lines(handle: int) -> int:
    """The file's size in bytes, once a last line torn by a kill is cut off."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    whole = os.pread(handle, size, 0).rfind(b"\n") + 1
    os.ftruncate(handle, whole)
    return whole


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of a log, raw and read."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it has no end")
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError("it has no step")
        except ValueError as error:
            log.warning("Left out line %d of %s: %s.", number, path, error)
            continue
        yield line, record


def _config_dict(config: Any) -> dict[str, Any]:
    """A config as nested dicts of JSON values, tuples as lists."""
    fields = config.to_dict() if hasattr(config, "to_dict") else config
    try:
        return plain(fields)
    except TypeError as error:
        raise TypeError(f"A config must hold JSON values only: {error}") from error


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted name -> value as JSON; 1 and 1.0 are the same value, 1 and true are not."""
    flat: dict[str, str] = {}
    for key, value in fields.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            whole = isinstance(value, float) and value.is_integer()
            flat[name] = json.dumps(int(value) if whole else value)
    return flat


def _close(run: Workdir | None) -> None:
    if run is not None:
        run.close()


def _take_lock(path: Path) -> int:
    """An open handle that holds the lock; closing it, or dying, lets go."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise RuntimeError(
            f"{path.parent} is being written by another run (process {owner}). "
            "Wait for it to end, or use another --workdir."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
    return handle


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
