"""What the device can do, measured, and what the work needs, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import models
from experiments.bench.peers.bench_protocol import timed

_ARRAY_BYTES = 2**30
_MATRIX = 8192


def copy_bandwidth() -> float:
    """Bytes per second, read and written together, of copying an array of 1 GiB."""
    x = jnp.ones(_ARRAY_BYTES // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return 2 * _ARRAY_BYTES / fastest(lambda: copy(x))


def matmul_rate(dtype: str) -> float:
    """FLOPs per second of a large square matrix product."""
    x = jnp.ones((_MATRIX, _MATRIX), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2 * _MATRIX**3 / fastest(lambda: product(x))


def fastest(repeat: Callable[[], Any]) -> float:
    """Seconds of the fastest of five calls, after one to warm up."""
    jax.block_until_ready(repeat())
    return min(timed(lambda: jax.block_until_ready(repeat())) for _ in range(5))


def decode_bytes(config: models.ModelConfig, batch: int, prompt: int, new: int) -> float:
    """Bytes that decoding must read: for every token all weights, and the cache as far as filled.

    Embeddings are read once, by the head; looking rows up is not counted, nor are activations.
    """
    itemsize = jnp.dtype(config.dtype).itemsize
    weights = _matrix_parameters(config) * itemsize
    position = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
    # The token at n of the completion sees prompt + n positions.
    return new * weights + batch * position * (new * prompt + new * (new - 1) / 2)


def train_flops(config: models.ModelConfig, batch: int, prompt: int, new: int) -> float:
    """FLOPs of a distillation step: student forward and backward, teacher forward.

    Two per parameter of a matrix and token, four in the backward pass; causal attention likewise,
    over the half of the square that is seen. The head counts on the completion alone.
    """
    length = prompt + new - 1
    head = config.vocab_size * config.hidden_size
    body = (_matrix_parameters(config) - head) * batch * length + head * batch * new
    attention = config.num_layers * config.num_heads * config.head_dim * batch * length**2
    return 4 * (2 * body + 2 * attention)


def _matrix_parameters(config: models.ModelConfig) -> int:
    """Parameters that multiply activations, the head among them (once, if tied)."""
    embedding = config.vocab_size * config.hidden_size
    return models.count(config) - (0 if config.tie_embeddings else embedding)
