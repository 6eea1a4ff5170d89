"""Tiny random models for the tests of `models`."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

# Lets tests, and the processes they start, import the modules beside this file.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def exact_products():
    """Float32 products are float32 on every backend."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(params=["qwen3", "qwen2", "llama"])
def family(request) -> str:
    return request.param


@pytest.fixture
def prompts() -> tuple[np.ndarray, np.ndarray]:
    """Four ragged prompts [4, 9], right-padded with token 3, and their lengths."""
    lengths = np.array([9, 1, 4, 6], np.int32)
    tokens = np.random.RandomState(7).randint(0, 61, (4, 9)).astype(np.int32)
    return np.where(np.arange(9) < lengths[:, None], tokens, 3), lengths
