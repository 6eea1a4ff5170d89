"""Decoding and scoring apart from MOTAB's program: what its parts and the literal loop call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.losses.divergence import top_k_entropy
from models.decoding.decode import (
    Cache,
    Cursor,
    capacities,
    decode,
    extend,
    init_cache,
    prefill,
    put,
    resize_cache,
)
from models.decoding.sampling import Sampling
from models.parameters import Params


def start(
    params: Params,
    config: models.ModelConfig,
    prompts: jax.Array,
    lengths: jax.Array,
    capacity: int,
) -> Cache:
    """A cache with all of every prompt in it but the last token."""
    return prefill(params, config, prompts, lengths, init_cache(config, prompts.shape[0], capacity))


def write(
    params: Params,
    config: models.ModelConfig,
    cache: Cache,
    cursor: Cursor,
    text_BxT: jax.Array,
    keys_B: jax.Array,
    eos_ids: tuple[int, ...],
    chunk: int,
    width: int,
) -> tuple[Cache, Cursor, jax.Array]:
    """Decodes until every row has ended or is at its limit; the cache grows as in `generate`.

    Args:
      params: unstacked.
      text_BxT: rows so far; the new tokens are put behind.
      width: no row gets longer than this.
    """

    def step(carry: Any) -> Any:
        cache, cursor, text = carry
        cache, new, written = decode(
            params, config, cache, cursor, keys_B, chunk, Sampling(), eos_ids
        )
        return cache, new, put(text, written.tokens_BxC, cursor.length_B, written.count_B)

    carry = cache, cursor, text_BxT
    for size in capacities(cache.capacity, width + chunk):

        def more(carry: Any, size: int = size) -> jax.Array:
            cursor = carry[1]
            longest = jnp.max(jnp.where(cursor.active_B, cursor.length_B, 0))
            return jnp.any(cursor.active_B) & (longest + chunk <= size)

        carry = jax.lax.while_loop(more, step, (resize_cache(carry[0], size), *carry[1:]))
    return carry


def write_step(
    params: Params,
    config: models.ModelConfig,
    cache: Cache,
    cursor: Cursor,
    text_BxT: jax.Array,
    keys_B: jax.Array,
    eos_ids: tuple[int, ...],
    ends_step: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[Cache, Cursor, jax.Array]:
    """Decodes until every row has ended its step.

    Args:
      ends_step: (tokens [B], tokens in the step [B]) to whether the step is complete.
    """

    def step(carry: Any) -> Any:
        cache, cursor, text, count = carry
        cache, new, written = decode(params, config, cache, cursor, keys_B, 1, Sampling(), eos_ids)
        text = put(text, written.tokens_BxC, cursor.length_B, written.count_B)
        count = count + written.count_B
        going = new.active_B & ~ends_step(new.token_B, count)
        return cache, new.replace(active_B=going), text, count

    carry = cache, cursor, text_BxT, jnp.zeros_like(cursor.length_B)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1].active_B), step, carry)[:3]


def score(
    params: Params,
    config: models.ModelConfig,
    cache: Cache,
    text_BxT: jax.Array,
    lengths_B: jax.Array,
    top_k: int,
) -> tuple[Cache, jax.Array, jax.Array]:
    """One pass of the teacher over whole rows.

    Returns:
      The cache with the rows in it; -log q [B, T - 1] of the tokens from the second on, and the
      entropies [B, T - 1] that belong to them, in nats.
    """
    valid = jnp.arange(text_BxT.shape[1]) < lengths_B[:, None]
    hidden, cache = extend(params, config, text_BxT, jnp.zeros_like(lengths_B), cache, valid)
    logits = models.logits(params, config, hidden[:, :-1])
    chosen = jnp.take_along_axis(logits, text_BxT[:, 1:, None], axis=-1)[..., 0]
    return cache, jax.nn.logsumexp(logits, axis=-1) - chosen, top_k_entropy(logits, top_k)
