"""A profile of a few updates, for TensorBoard's profile plugin or ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from experiments.config.sections import ProfileSettings
from experiments.machine.processes import is_first

PROFILE = "profile"


class Trace:
    """Traces the updates that the settings name into WORKDIR/profile. Use as a context manager."""

    def __init__(self, settings: ProfileSettings, workdir: Path):
        steps = settings.steps if is_first() else 0  # of several processes one is traced
        self._first, self._end = settings.first, settings.first + steps
        self._directory, self._running = workdir / PROFILE, False

    def before(self, step: int) -> None:
        """Call before update `step`, counted from 1. A resumed run traces what is left."""
        if self._first <= step < self._end and not self._running:
            jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Call with what the update returned, on the device; waits for the last traced one."""
        if self._running and step + 1 >= self._end:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()
