"""Compiled programs that the runs of a study share."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def keep_compiled(directory: Path) -> None:
    """Lets the runs of a study, many of which compile the same program, compile it once.

    A directory that the environment names is used instead.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(directory.expanduser().resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
