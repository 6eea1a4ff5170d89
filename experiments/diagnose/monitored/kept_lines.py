"""Lines that outlast an interruption: a header that says what they are, and a sealed line each."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from experiments.rollouts.synthesis import read_line, sealed
from experiments.workdir.files import plain, read_regular, write_atomic

log = logging.getLogger(__name__)


class KeptLines:
    """A file to which lines are added as they come. Use as a context manager.

    Nothing is written before the first line is added.

    Attributes:
      known: the lines that an earlier call has left, by `sample_id`.

    Args:
      path: of the file.
      header: what all lines depend on.
      free: entries of the header that may differ, such as paths.

    Raises:
      ValueError: the file was written with another header, or is no such file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], free: Iterable[str] = ()):
        self.path = path
        self._header = plain(header)
        self.known: dict[int, dict[str, Any]] = {}
        self._file: BinaryIO | None = None
        if path.exists():
            there, self.known = read_lines(path)
            _compare(path, there, self._header, set(free))

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Keeps lines; they are on the disk when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = [json.dumps(self._header).encode() + b"\n", *map(sealed, self.known.values())]
            write_atomic(self.path, b"".join(whole))  # without what a kill tore
            self._file = self.path.open("ab")
        self._file.write(b"".join(sealed(plain(record)) for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> KeptLines:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()


def read_lines(path: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """The header of a file of kept lines, and its lines by `sample_id`.

    A line that a kill tore or a disk changed is told of, and does not count.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such file.
    """
    first, *lines = read_regular(path).splitlines() or [b""]
    try:
        header = json.loads(first)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("kind") != "header":
        raise ValueError(f"{path}, line 1: no header. Remove the file, or name another directory.")
    known: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 2):
        try:
            record = read_line(line + b"\n")
        except ValueError as error:
            log.warning("%s, line %d: %s; it does not count.", path, number, error)
            continue
        known[record.pop("sample_id")] = {k: v for k, v in record.items() if k != "crc"}
    return header, {i: {"sample_id": i, **known[i]} for i in sorted(known)}


def _compare(path: Path, there: Mapping[str, Any], now: Mapping[str, Any], free: set[str]) -> None:
    for name in [*now, *(n for n in there if n not in now)]:
        if name in free or there.get(name) == now.get(name):
            continue
        raise ValueError(
            f"{path} was written with another {name}: {there.get(name)}, now {now.get(name)}. "
            "Name another directory, or set the flags to what the file says."
        )
