"""Compiled programs: kept between processes, counted and timed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib

_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class _Total:
    programs: int = 0
    seconds: float = 0.0

    def add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            self.programs += 1
            self.seconds += duration_secs


_total = _Total()
jax.monitoring.register_event_duration_secs_listener(_total.add)


class Watch:
    """What this process has compiled, or read from the cache, since the watch was made."""

    def __init__(self):
        self._before = dataclasses.replace(_total)

    @property
    def programs(self) -> int:
        """Number of programs."""
        return _total.programs - self._before.programs

    @property
    def seconds(self) -> float:
        """Time that XLA took for them; tracing not included."""
        return _total.seconds - self._before.seconds


def keep_compiled() -> None:
    """Lets processes that compile the same programs compile them once.

    They are kept where the environment says (`JAX_COMPILATION_CACHE_DIR`), else in
    `default_directory()`, which may be deleted at any time.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(default_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_directory() -> Path:
    """In `~/.cache/motab` or `$XDG_CACHE_HOME/motab`, by machine and version of jaxlib.

    A program for one processor may crash another, which jax does not always notice, and home
    directories are shared: the name depends on what the processor can do.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve()
    machine = hashlib.blake2b(digest_size=6)
    machine.update(f"{jaxlib.__version__} {platform.machine()} {_processor()}".encode())
    return base / "motab" / f"xla-{machine.hexdigest()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    # x86 lists `flags`, Arm `Features`.
    names = ("model name", "flags", "Features")
    return " ".join(sorted({line for line in lines if line.startswith(names)}))
