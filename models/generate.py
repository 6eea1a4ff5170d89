"""Sampling completions for a batch of prompts."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.decode import (
    Cursor,
    capacities,
    decode,
    grow_cache,
    init_cache,
    prefill,
    put,
    unstack,
)
from models.parameters import Params
from models.sampling import Sampling, row_keys

_STATIC = ("config", "max_new_tokens", "temperature", "top_p", "top_k", "eos_ids", "vocab_size")
# Tokens written between two checks of whether every row has ended.
_CHUNK = 8


class Generation(flax.struct.PyTreeNode):
    """Completions, right-padded with zeros.

    Attributes:
      tokens_BxN: completion tokens, the end-of-sequence token included.
      lengths_B: completion lengths, in tokens.
      log_probs_sampled_BxN: nats, under the (tempered, filtered) distribution sampled from.
      log_probs_BxN: nats, under the model at temperature 1, unfiltered.
    """

    tokens_BxN: jax.Array
    lengths_B: jax.Array
    log_probs_sampled_BxN: jax.Array
    log_probs_BxN: jax.Array


@functools.partial(jax.jit, static_argnames=_STATIC)
def generate(
    params: Params,
    config: ModelConfig,
    prompts: jax.Array,
    prompt_lengths: jax.Array,
    key: jax.Array,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    eos_ids: tuple[int, ...] = (),
    row_ids: jax.Array | None = None,
    vocab_size: int | None = None,
) -> Generation:
    """Samples a completion of every prompt until end of sequence or `max_new_tokens`.

    Args:
      prompts: [B, P] token ids, right-padded.
      prompt_lengths: [B], at least 1.
      key: noise of a token is a function of (key, row id, position in the completion) alone.
      temperature: 0 is greedy.
      top_p, top_k: filters; 1.0 and 0 are off.
      eos_ids: a row ends once it has written one of these.
      row_ids: [B] identities of the rows; their index in the batch by default.
      vocab_size: ids from here on are never drawn.

    Returns:
      A `Generation`.
    """
    sampling = Sampling(temperature, top_p, top_k, vocab_size)
    batch, width = prompts.shape
    total = width + max_new_tokens
    sizes = capacities(width + _CHUNK, total + _CHUNK)
    params = unstack(params, config)
    row_ids = jnp.arange(batch) if row_ids is None else row_ids
    keys = row_keys(key, row_ids)
    cache = prefill(params, config, prompts, prompt_lengths, init_cache(config, batch, sizes[0]))
    cursor = Cursor(
        token_B=jnp.take_along_axis(prompts, prompt_lengths[:, None] - 1, axis=1)[:, 0],
        length_B=prompt_lengths,
        limit_B=prompt_lengths + max_new_tokens,
        origin_B=prompt_lengths,
        active_B=jnp.full(batch, max_new_tokens > 0),
    )
    out = Generation(
        tokens_BxN=jnp.zeros((batch, max_new_tokens), jnp.int32),
        lengths_B=jnp.zeros(batch, jnp.int32),
        log_probs_sampled_BxN=jnp.zeros((batch, max_new_tokens), jnp.float32),
        log_probs_BxN=jnp.zeros((batch, max_new_tokens), jnp.float32),
    )

    def chunk(carry):
        cache, cursor, out = carry
        cache, new, written = decode(params, config, cache, cursor, keys, _CHUNK, sampling, eos_ids)
        start, count = cursor.length_B - cursor.origin_B, written.count_B
        out = Generation(
            tokens_BxN=put(out.tokens_BxN, written.tokens_BxC, start, count),
            lengths_B=out.lengths_B + count,
            log_probs_sampled_BxN=put(
                out.log_probs_sampled_BxN, written.log_probs_sampled_BxC, start, count
            ),
            log_probs_BxN=put(out.log_probs_BxN, written.log_probs_BxC, start, count),
        )
        return cache, new, out

    carry = (cache, cursor, out)
    for size in sizes:

        def more(carry, size=size):
            _, cursor, _ = carry
            longest = jnp.max(jnp.where(cursor.active_B, cursor.length_B, 0))
            return jnp.any(cursor.active_B) & (longest + _CHUNK <= size)

        carry = jax.lax.while_loop(more, chunk, (grow_cache(carry[0], size), *carry[1:]))
    return carry[2]
