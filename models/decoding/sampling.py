"""Drawing the next token, with noise that belongs to a row's identity and position."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from models.checks import Temperature, at_least, between, check


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw a token from logits.

    Attributes:
      temperature: 0 is greedy.
      top_p: keeps the fewest most likely tokens whose probabilities (at `temperature`, after
        `top_k`) sum to at least this; lower ids first where probabilities tie.
      top_k: keeps this many most likely tokens, and those that tie with the last; 0 keeps all.
      vocab_size: only ids below it can be drawn; None allows all. For embedding tables padded
        beyond the tokenizer, or beyond the other model's table.
    """

    temperature: Temperature = 1.0
    top_p: Annotated[float, between(0, 1, "(]")] = 1.0
    top_k: Annotated[int, at_least(0, "off")] = 0
    vocab_size: Annotated[int | None, at_least(1)] = None

    def __post_init__(self):
        check(self)


def row_keys(key: jax.Array, row_ids_B: jax.Array) -> jax.Array:
    """One key per row, from its global id: batch order and batch size do not enter."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, row_ids_B)


def filter_logits(logits_BxV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits of the distribution that is sampled from: tempered, others at minus infinity.

    At temperature 0 the whole mass goes to the first most likely token.
    """
    logits = mask_padding(logits_BxV, sampling.vocab_size)
    if sampling.temperature == 0:
        best = first_argmax(logits)[..., None]
        return jnp.where(jnp.arange(logits.shape[-1]) == best, 0.0, -jnp.inf)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, sampling.top_k)[0][..., -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if sampling.top_p < 1:
        descending = -jnp.sort(-logits, axis=-1)
        probs = jax.nn.softmax(descending, axis=-1)
        kept = jnp.cumsum(probs, axis=-1) - probs < sampling.top_p
        floor = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
        # Of several tokens at the floor, only as many as the mass asks for: the lowest ids.
        at_floor = logits == floor
        places = jnp.sum(kept & (descending == floor), axis=-1, keepdims=True)
        dropped = (logits < floor) | (at_floor & (jnp.cumsum(at_floor, axis=-1) > places))
        logits = jnp.where(dropped, -jnp.inf, logits)
    return logits


def mask_padding(logits_BxV: jax.Array, vocab_size: int | None) -> jax.Array:
    """Logits with ids from `vocab_size` on at minus infinity."""
    if vocab_size is None or vocab_size >= logits_BxV.shape[-1]:
        return logits_BxV
    return jnp.where(jnp.arange(logits_BxV.shape[-1]) < vocab_size, logits_BxV, -jnp.inf)


def first_argmax(x_BxV: jax.Array) -> jax.Array:
    """Where each row has its maximum [B], int32; the first place of several.

    As `jnp.argmax`, of numbers. That one walks through value and index together, which XLA on CPU
    does not vectorize, and forms the noise of `sample` inside of the walk: three times as long.
    """
    x_BxV = jax.lax.optimization_barrier(x_BxV)
    size = x_BxV.shape[-1]
    best = jnp.max(x_BxV, axis=-1, keepdims=True)
    places = jnp.where(x_BxV == best, jnp.arange(size, dtype=jnp.int32), size - 1)
    return jnp.min(places, axis=-1)


def sample(
    logits_BxV: jax.Array, keys_B: jax.Array, positions_B: jax.Array, sampling: Sampling
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one token per row by the Gumbel-max trick.

    Args:
      logits_BxV: float32 logits.
      keys_B: a key per row, from `row_keys`.
      positions_B: response position of the token to be drawn; folded into the key.
      sampling: temperature and filters.

    Returns:
      Tokens [B]; their log-probabilities [B] in nats under the distribution that was sampled
      (0 where greedy); and under the model at temperature 1, unfiltered.
    """
    filtered = filter_logits(logits_BxV, sampling)
    if sampling.temperature == 0:
        tokens = first_argmax(filtered)
    else:
        keys = jax.vmap(jax.random.fold_in)(keys_B, positions_B)
        noise = jax.vmap(lambda k: jax.random.gumbel(k, filtered.shape[-1:]))(keys)
        tokens = first_argmax(filtered + noise)

    def log_prob(logits: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    log_probs = log_prob(mask_padding(logits_BxV, sampling.vocab_size))
    if sampling.temperature == 0:
        sampled = jnp.zeros_like(log_probs)
    elif sampling == Sampling(vocab_size=sampling.vocab_size):
        sampled = log_probs  # neither tempered nor filtered
    else:
        sampled = log_prob(filtered)
    return tokens, sampled, log_probs
