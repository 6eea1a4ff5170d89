"""What an evaluation has graded so far, on disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.workdir.files import plain, read_regular, write_atomic

log = logging.getLogger(__name__)


class Part:
    """Records by place, a line each, behind a line that says what they are records of.

    Attributes:
      known: what an earlier call has left, if it evaluated the same.

    Args:
      path: of the file; another evaluation's is begun anew.
      made_of: model, data and settings, as JSON.
    """

    def __init__(self, path: Path, made_of: Mapping[str, Any]):
        self.path = path
        self.known: dict[int, dict[str, Any]] = {}
        header = json.dumps(plain(made_of), sort_keys=True).encode() + b"\n"
        lines = read_regular(path).splitlines(keepends=True) if path.exists() else []
        if lines and lines[0] != header:
            log.warning("%s is of another evaluation: beginning anew.", path)
        elif lines:
            for line in lines[1:]:
                try:
                    place, record, crc = json.loads(line)
                    if _line((place, record)) == line and crc is not None:
                        self.known[int(place)] = dict(record)
                except (ValueError, TypeError, RecursionError):  # torn by a kill, or changed
                    continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, header + b"".join(map(_line, self.known.items())))
        self._file = path.open("ab")

    def add(self, records: Mapping[int, Mapping[str, Any]]) -> None:
        """Keeps records that were just graded."""
        self._file.write(b"".join(map(_line, records.items())))
        self._file.flush()

    def done(self) -> None:
        """The whole is written elsewhere."""
        self._file.close()
        self.path.unlink()


def _line(item: tuple[int, Mapping[str, Any]]) -> bytes:
    """A record with its place and a checksum."""
    text = json.dumps([item[0], plain(item[1])])
    return f"{text[:-1]}, {zlib.crc32(text.encode())}]\n".encode()
