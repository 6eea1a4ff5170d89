"""The full-vocabulary reverse KL alone, from hidden states: in blocks, or dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import readout, weighted_sum
from distill.losses.divergence import reverse_kl
from experiments.bench.peers.bench_protocol import Session

_ROWS = 8


def measure(session: Session) -> None:
    """Time of value and gradient at one size, compiled memory of it at a larger one."""
    request = session.request
    shape = request["loss"]
    make = _dense if request["variant"] == "dense" else _in_blocks
    for dtype in ("float32", "bfloat16"):
        config = _config(shape["vocab_size"], shape["hidden"], dtype)
        abstract = jax.eval_shape(lambda: _inputs(shape["tokens"], config))  # noqa: B023
        compiled = jax.jit(make(config)).lower(*abstract).compile()
        memory: Any = compiled.memory_analysis()
        session.facts[f"temporary_gb_{dtype}"] = memory.temp_size_in_bytes / 1e9
    config = _config(shape["timed_vocab_size"], shape["hidden"], request["dtype"])
    inputs = jax.jit(lambda: _inputs(shape["timed_tokens"], config))()
    function = jax.jit(make(config))
    session.measure(lambda: jax.block_until_ready(function(*inputs)))
    session.facts["tokens"] = shape["timed_tokens"]
    session.facts["value"] = float(function(*inputs)[0])


def _config(vocab_size: int, hidden: int, dtype: str) -> models.ModelConfig:
    """A model of which only the head matters."""
    return models.ModelConfig(
        family="qwen3",
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=hidden,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=64,
        dtype=dtype,
    )


def _inputs(tokens: int, config: models.ModelConfig) -> tuple[jax.Array, ...]:
    """Hidden states and heads of student and teacher. The student's head has its master weights."""
    keys = jax.random.split(jax.random.key(0), 4)

    def hidden(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (_ROWS, tokens // _ROWS, config.hidden_size), config.dtype)

    def head(key: jax.Array, dtype: str) -> jax.Array:
        head = jax.random.normal(key, (config.vocab_size, config.hidden_size), dtype)
        return head / jnp.sqrt(config.hidden_size).astype(dtype)

    return (hidden(keys[0]), head(keys[1], "float32"), hidden(keys[2]), head(keys[3], config.dtype))


def _in_blocks(config: models.ModelConfig) -> Callable[..., tuple]:
    def loss(hidden, head, teacher_hidden, teacher_head):
        student = readout({"head": head}, config, hidden)
        teacher = readout({"head": teacher_head}, config, teacher_hidden)
        weights = jnp.ones(hidden.shape[:2])
        total, _ = weighted_sum(lambda p, q, _: (reverse_kl(q, p), ()), student, teacher, weights)
        return total / weights.size

    return jax.value_and_grad(loss, argnums=(0, 1))


def _dense(config: models.ModelConfig) -> Callable[..., tuple]:
    def loss(hidden, head, teacher_hidden, teacher_head):
        p = models.logits({"head": head}, config, hidden)
        q = models.logits({"head": teacher_head}, config, teacher_hidden)
        return jnp.mean(reverse_kl(jax.lax.stop_gradient(q), p))

    return jax.value_and_grad(loss, argnums=(0, 1))
