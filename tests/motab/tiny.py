"""Tiny random model pairs over a vocabulary whose tokens straddle the delimiter in every way."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import models
from distill.steps.table import make_step_table

EOS = 0
TOKENS = [
    b"",
    b"a",
    b"b",
    b".",
    b"\n",
    b"\n\n",
    b".\n",
    b".\n\n",
    b"c.",
    b"\n\nd",
    b"e.\n\nf",
    b"g",
    b"",
]
DELIMITER_IDS = (3, 4, 4)
REVISION_IDS = (2, 5)
TABLE = make_step_table(TOKENS, ".\n\n")


def config(hidden: int = 16, layers: int = 2, vocab: int = len(TOKENS)) -> models.ModelConfig:
    return models.ModelConfig(
        family="qwen3",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_layers=layers,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        qk_norm=True,
    )


STUDENT = config()
TEACHER = config(hidden=24, layers=1, vocab=len(TOKENS) + 3)


def params(config: models.ModelConfig, seed: int, sharpness: float = 3.0):
    """Random parameters, sharp enough that steps differ in value."""
    p = models.init(jax.random.key(seed), config)
    return {**p, "head": p["head"] * sharpness}


def prompts(seed: int, batch: int, width: int = 6):
    """Right-padded random prompts [B, P] and their lengths."""
    keys = jax.random.split(jax.random.key(seed))
    tokens = jax.random.randint(keys[0], (batch, width), 1, len(TOKENS))
    lengths = jax.random.randint(keys[1], (batch,), 1, width + 1)
    return jnp.where(jnp.arange(width) < lengths[:, None], tokens, 0), lengths
