"""What orbax logs: dropped where it says nothing that the caller does not say better."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


class _OrbaxChatter(logging.Filter):
    """Drops what orbax says below `level`: its errors reach the caller as exceptions."""

    level = logging.ERROR

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or record.levelno >= self.level


_chatter = _OrbaxChatter()
logging.getLogger("absl").addFilter(_chatter)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops orbax's errors too, for the caller says what went wrong."""
    before, _chatter.level = _chatter.level, logging.CRITICAL + 1
    try:
        yield
    finally:
        _chatter.level = before
