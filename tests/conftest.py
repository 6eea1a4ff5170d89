"""Settings of the whole suite."""

import os
import tempfile

import hypothesis
import pytest

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

import jax  # noqa: E402 - reads the environment


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """A file's compiled programs go with it: a worker that kept them all would hold gigabytes."""
    yield
    jax.clear_caches()
