"""Settings of the whole suite."""

import os
import shutil
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

# Nothing is timed, and most of a test's time is compilation: level 0 saves a third of all. Programs
# as users have them run in `.ci/run` outside of the suite.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax  # noqa: E402 - reads the environment

from .real_files import QWEN3  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """A file's compiled programs go with it: a worker that kept them all would hold gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def qwen3_directory(tmp_path_factory):
    """The Qwen3 tokenizer under the names that Hugging Face directories use."""
    if not QWEN3.is_dir():
        pytest.skip("needs the Qwen3 tokenizer: see tests/real_files.py")
    path = tmp_path_factory.mktemp("qwen3")
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copy(QWEN3 / name, path / name)
    shutil.copy(QWEN3 / "tokenizer.rebuilt.json", path / "tokenizer.json")
    return path
