"""How long a run took, over all the calls that worked on it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from experiments.machine.compilation import Watch


class Clock:
    """Seconds of a run, and of compiling in it; those of earlier calls come from a checkpoint."""

    def __init__(self) -> None:
        self._started, self._compiled = time.monotonic(), Watch()
        self._seconds_before = self._compiling_before = 0.0
        self._last = self._started

    @property
    def seconds(self) -> float:
        """Of the whole run so far."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def compile_seconds(self) -> float:
        """Those that went into compiling."""
        return self._compiling_before + self._compiled.seconds

    def lap(self) -> float:
        """Seconds since the last call of this, or of `skip`."""
        last, self._last = self._last, time.monotonic()
        return self._last - last

    def skip(self) -> None:
        """What was done up to now belongs to no lap."""
        self._last = time.monotonic()

    def get_state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "compile_seconds": self.compile_seconds}

    def set_state(self, state: Mapping[str, float]) -> None:
        """Goes on where a checkpoint stood."""
        self._seconds_before = state["seconds"]
        self._compiling_before = state["compile_seconds"]
