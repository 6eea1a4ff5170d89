"""A run's growing logs: JSON lines that are added, marked at a checkpoint, and cut back to it.

A mark is a log's length and digest. A checkpoint carries the marks of its step, so that a resumed
run knows whether a log is what was written up to there, and says where it is not.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.workdir.files import open_log, plain, read_regular, sync_directory, write_atomic

METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
KINDS = ("train", "validation", "evaluation")
_DIGEST_BYTES = 12
# So many unreadable lines of a file are named; the others are counted.
_NAMED = 5

log = logging.getLogger(__name__)


class Log:
    """One growing file of lines, written by this process alone.

    Attributes:
      path: the file; made with its first line.
    """

    def __init__(self, path: Path):
        self.path = path
        self._size, self._digest = -1, _new_digest()  # as read on the first use

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines: all of them or, where the disk is full, none.

        Raises:
          ValueError: a record has no step.
          OSError: nothing was added.
        """
        for record in records:
            if not _is_step(plain(record.get("step"))):
                raise ValueError(
                    f"A record of {self.path.name} needs an integer step: {dict(record)}."
                )
        content = b"".join(
            json.dumps(plain(record), allow_nan=False).encode("utf-8") + b"\n" for record in records
        )
        if self._size < 0:
            self._read()
        handle = open_log(self.path)
        try:
            size = _end_of_whole_lines(handle)
            if size != self._size:
                log.warning("%s was changed while the run was writing it.", self.path)
                self._digest.update(b"changed")  # and so no mark will fit
            try:
                written = 0
                while written < len(content):
                    written += os.write(handle, content[written:])
            except OSError as error:
                os.ftruncate(handle, size)
                raise OSError(
                    error.errno,
                    f"{self.path} could not be written to ({error.strerror}); nothing was added",
                ) from error
        finally:
            os.close(handle)
        self._size = size + len(content)
        self._digest.update(content)

    def mark(self) -> dict[str, Any]:
        """Length and digest of what was written so far, which is on the disk from here on."""
        if self._size < 0:
            self._read()
        if self.path.exists():
            handle = open_log(self.path)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_directory(self.path.parent)
        return {"bytes": self._size, "digest": self._digest.hexdigest()}

    def fits(self, mark: Mapping[str, Any] | None) -> bool:
        """Whether the file begins with what was marked."""
        content = _content(self.path)[: mark["bytes"]] if mark else b""
        return mark is None or (
            len(content) == mark["bytes"] and _new_digest(content).hexdigest() == mark["digest"]
        )

    def cut_back(self, step: int, mark: Mapping[str, Any] | None = None) -> str:
        """Forgets every line after a checkpoint, and a last line torn by a kill.

        Where the file does not begin with what was marked, the lines up to `step` that can be read
        stay, those of metrics.jsonl once each.

        Args:
          step: of the checkpoint; -1 for none, which empties the file.
          mark: of the checkpoint; None goes by the steps alone.

        Returns:
          What is missing or was changed; empty where nothing is.
        """
        self._size = -1
        if mark is not None and self.fits(mark):
            content = _content(self.path)
            if len(content) > mark["bytes"]:
                collections.deque(_lines(self.path), maxlen=0)  # says what cannot be read
                write_atomic(self.path, content[: mark["bytes"]])
            return ""
        lines = list(_lines(self.path)) if self.path.exists() else []
        kept = [(line, record) for line, record in lines if record["step"] <= step]
        if self.path.name == METRICS:
            kept = _once(kept)
        if self.path.exists():
            write_atomic(self.path, b"".join(line for line, _ in kept))
        if mark is None:
            return ""
        absent = ""
        if self.path.name == METRICS:
            absent = missing_updates([record for _, record in kept], step)
        return f"{self.path.name} {absent or 'is not what was written'} up to step {step}"

    def _read(self) -> None:
        content = _content(self.path)
        whole = content[: content.rfind(b"\n") + 1]
        self._size, self._digest = len(whole), _new_digest(whole)


def missing_updates(records: Sequence[Mapping[str, Any]], last: int) -> str:
    """Which of the updates 1 to `last` have no line, or several; empty where each has one."""
    counts = collections.Counter(r["step"] for r in records if r.get("kind") == "train")
    there = [0, *sorted(step for step in counts if 1 <= step <= last), last + 1]
    absent = [(a + 1, b - 1) for a, b in itertools.pairwise(there) if b > a + 1]
    repeated = [(step, step) for step in sorted(counts) if counts[step] > 1]
    parts = []
    if absent:
        parts.append(f"lacks the updates of steps {_spans(absent)}")
    if repeated:
        parts.append(f"has the updates of steps {_spans(repeated)} more than once")
    return " and ".join(parts)


def _spans(found: Sequence[tuple[int, int]]) -> str:
    """`1 to 4, 7` of (1, 4) and (7, 7); of many the first few."""
    texts = [f"{a} to {b}" if b > a else f"{a}" for a, b in found[:_NAMED]]
    return ", ".join(texts) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a `.jsonl` file; none if there is no file.

    A line that cannot be read is left out with a warning, a last one torn by a kill among them.

    Raises:
      ValueError: it is not a regular file.
    """
    return [record for _, record in _lines(Path(path))] if Path(path).exists() else []


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of a log, raw and read."""
    left_out = 0
    for number, line in enumerate(read_regular(path).splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it has no end")
            record = json.loads(line)
            if not isinstance(record, dict) or not _is_step(record.get("step")):
                raise ValueError("it has no step")
            check_record(path.name, record)
        except (ValueError, RecursionError) as error:
            left_out += 1
            if left_out <= _NAMED:
                log.warning("Left out line %d of %s: %s.", number, path, str(error)[:200])
            continue
        yield line, record
    if left_out > _NAMED:
        log.warning("Left out %d more lines of %s.", left_out - _NAMED, path)


def check_record(name: str, record: Mapping[str, Any]) -> None:
    """Raises where a line of a log is not of the form that readers rely on.

    Args:
      name: of the log's file.

    Raises:
      ValueError: names the field.
    """
    if name == METRICS:
        _check_metrics(record)
    elif name == TRAJECTORIES:
        _check_trajectory(record)


def _check_metrics(record: Mapping[str, Any]) -> None:
    kind = record.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is none of {', '.join(KINDS)}")
    if kind == "evaluation":
        for name in ("name", "data"):
            if not isinstance(record.get(name), str):
                raise ValueError(f"{name}={record.get(name)!r} must be text")
    for name, value in record.items():
        plain_number = kind != "evaluation" and name not in ("step", "kind")
        if (plain_number or name == "accuracy") and not is_number(value):
            raise ValueError(f"{name}={value!r} must be a number")


def _check_trajectory(record: Mapping[str, Any]) -> None:
    parts = record.get("parts", [])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict)
        and isinstance(part.get("source"), str)
        and isinstance(part.get("text"), str)
        for part in parts
    ):
        raise ValueError("parts must be a list of objects with source and text")
    for name in ("values", "boundaries"):
        numbers = record.get(name, [])
        if not isinstance(numbers, list) or not all(is_number(x) for x in numbers):
            raise ValueError(f"{name} must be a list of numbers")
    for name in ("breach", "root", "depth"):
        if not isinstance(record.get(name, 0), int):
            raise ValueError(f"{name}={record[name]!r} must be a whole number")


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number, or a text that stands for one that is not finite."""
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return isinstance(value, int | float)  # true and false are 1 and 0


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _once(lines: list[tuple[bytes, dict[str, Any]]]) -> list[tuple[bytes, dict[str, Any]]]:
    """The first line of what was logged of a step, in the order of steps."""
    first: dict[Any, tuple[bytes, dict[str, Any]]] = {}
    for line, record in lines:
        key = tuple(record.get(x) for x in ("step", "kind", "name", "data"))
        first.setdefault(key, (line, record))
    return sorted(first.values(), key=lambda pair: pair[1]["step"])


def _content(path: Path) -> bytes:
    return read_regular(path) if path.exists() else b""


def _new_digest(content: bytes = b"") -> Any:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES)


def _end_of_whole_lines(handle: int) -> int:
    """The file's size in bytes, once a last line torn by a kill is cut off."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    whole = os.pread(handle, size, 0).rfind(b"\n") + 1
    os.ftruncate(handle, whole)
    return whole
