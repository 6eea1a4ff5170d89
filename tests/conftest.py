"""Settings of the whole suite."""

import os
import tempfile

import hypothesis

# Compilation makes first calls slow; a failing example must fail again tomorrow.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

# Tests and the processes they start compile many programs twice. The cache lives as long as the
# suite: workers and subprocesses inherit it, the next suite starts anew.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="jax-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
