"""Cached decoding: the one core behind `generate`, rollouts, scoring and evaluation.

A row's cache slot is its position, so a row is rewound by moving its length back: slots beyond
the length are never read and are overwritten as the row grows again.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from models.attention import grouped_attention
from models.config import ModelConfig
from models.decoding.sampling import Sampling, sample
from models.parameters import Params, count
from models.sharding import constrain
from models.transformer import block, embed, logits, rms_norm

_CACHE_AXES = ("batch", "kv_heads", None, None)


class Cache(flax.struct.PyTreeNode):
    """Keys and values of every layer, each [B, Hk, S, Dh], S being the capacity in positions."""

    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]

    @property
    def capacity(self) -> int:
        return self.k[0].shape[2]


def init_cache(config: ModelConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for `batch` rows of at most `capacity` tokens."""
    shape = (batch, config.num_kv_heads, capacity, config.head_dim)
    layers = range(config.num_layers)
    empty = tuple(jnp.zeros(shape, config.dtype) for _ in layers)
    return constrain_cache(Cache(k=empty, v=empty), config)


def constrain_cache(cache: Cache, config: ModelConfig) -> Cache:
    """Pins a cache to its place on the mesh: rows over the batch's axes, heads by their rule.

    Raises:
      ValueError: rows or heads do not divide.
    """

    def place(x: jax.Array) -> jax.Array:
        return constrain(x, _CACHE_AXES, config.mesh, config.rules, "cache")

    return cache if config.mesh is None else jax.tree.map(place, cache)


def resize_cache(cache: Cache, capacity: int) -> Cache:
    """The same cache with room for `capacity` positions; what lies beyond is cut off."""
    extra = capacity - cache.capacity
    if extra <= 0:
        return jax.tree.map(lambda x: x[:, :, :capacity], cache)
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, extra), (0, 0))), cache)


def capacities(start: int, total: int, least: int = 32) -> list[int]:
    """Cache capacities from the first power of two at or above `start`, doubling up to `total`.

    Attention reads the whole capacity, used or not, so short rows should not pay for long ones.

    Args:
      least: no capacity is less, unless `total` is; a power of two, as `least_capacity` gives it.
    """
    sizes, size = [], least
    while size < start:
        size *= 2
    while size < total:
        sizes.append(size)
        size *= 2
    return [*sizes, total]


def least_capacity(configs: Sequence[ModelConfig]) -> int:
    """The power of two from 32 up to which a cache may as well be held whole, in positions.

    Every capacity is a program of its own, whose compilation takes as long as the model is deep. Up
    to here attention to all positions is less than a twentieth of what the weights cost.
    """

    def positions(c: ModelConfig) -> int:
        # A token costs 2 FLOPs by weight, and 4 by position and by number of all queries.
        return count(c) // (20 * 2 * c.num_heads * c.head_dim * c.num_layers)

    return 1 << max(5, min(map(positions, configs)).bit_length() - 1)


def unstack(params: Params, config: ModelConfig) -> Params:
    """Parameters as decoding reads them: `layers` is a list of layers, all in `config.dtype`.

    Call it once, outside the token loop: there every token reads all of them. A list stays as it
    is, and is not copied.
    """
    return params if isinstance(params["layers"], list) else unstacked(params, config)


@functools.partial(jax.jit, static_argnums=1)
def unstacked(params: Params, config: ModelConfig) -> Params:
    """A copy of stacked parameters, as `unstack` gives them."""
    params = jax.tree.map(lambda x: x.astype(config.dtype), params)
    stacked = params["layers"]
    layers = [jax.tree.map(operator.itemgetter(i), stacked) for i in range(config.num_layers)]
    return {**params, "layers": layers}


def extend(
    params: Params,
    config: ModelConfig,
    tokens_BxT: jax.Array,
    start_B: jax.Array,
    cache: Cache,
    valid_BxT: jax.Array | None = None,
) -> tuple[jax.Array, Cache]:
    """Runs new tokens through the model behind what the cache holds.

    Args:
      params: unstacked parameters.
      tokens_BxT: new tokens; row b's lie at positions `start_B[b]`, `start_B[b] + 1`, ...
      start_B: tokens of each row that the cache already holds.
      cache: keys and values of those tokens.
      valid_BxT: False where a token is padding: it leaves no trace in the cache, and its hidden
        state means nothing. Must be a prefix of True in every row.

    Returns:
      Hidden states [B, T, D] after the final norm, and the cache with the new tokens in it.
    """
    batch, length = tokens_BxT.shape
    positions_BxT = start_B[:, None] + jnp.arange(length)
    slots_BxT = positions_BxT
    if valid_BxT is not None:
        slots_BxT = jnp.where(valid_BxT, positions_BxT, cache.capacity)  # out of range: dropped
    rows = jnp.arange(batch)[:, None]
    visible = jnp.arange(cache.capacity) <= positions_BxT[..., None]  # [B, T, S]
    keys, values = list(cache.k), list(cache.v)

    x = embed(params, config, tokens_BxT)
    for i, layer in enumerate(params["layers"]):

        def attend(q: jax.Array, k: jax.Array, v: jax.Array, i: int = i) -> jax.Array:
            keys[i] = keys[i].at[rows, :, slots_BxT].set(k, mode="drop")
            values[i] = values[i].at[rows, :, slots_BxT].set(v, mode="drop")
            return grouped_attention(q, keys[i], values[i], visible)

        x = block(x, layer, config, positions_BxT, attend)
    x = rms_norm(x, params["final_norm"], config.norm_eps)
    return x, Cache(k=tuple(keys), v=tuple(values))


def prefill(
    params: Params,
    config: ModelConfig,
    prompts_BxP: jax.Array,
    prompt_lengths_B: jax.Array,
    cache: Cache,
) -> Cache:
    """Fills an empty cache with every prompt token but the last, which `decode` feeds first."""
    valid = jnp.arange(prompts_BxP.shape[1]) < prompt_lengths_B[:, None] - 1
    start = jnp.zeros_like(prompt_lengths_B)
    return extend(params, config, prompts_BxP, start, cache, valid)[1]


def check_ends(eos_ids: Sequence[int]) -> tuple[int, ...]:
    """The tokens that end a text, as a tuple; a ValueError where there are none."""
    if not len(eos_ids):
        raise ValueError("eos_ids is empty: no text could end before its budget.")
    return tuple(eos_ids)


class Cursor(flax.struct.PyTreeNode):
    """Where each row stands while it is being written.

    Attributes:
      token_B: last token written; the cache holds everything before it.
      length_B: tokens written so far, prompt included: `token_B` lies at `length_B - 1`.
      limit_B: the row stops at this length.
      origin_B: prompt length; response positions, which key the noise, count from here.
      active_B: rows that are being written; others stay as they are.
    """

    token_B: jax.Array
    length_B: jax.Array
    limit_B: jax.Array
    origin_B: jax.Array
    active_B: jax.Array

    @property
    def open_B(self) -> jax.Array:
        """Length of the rows that are being written; 0 in others."""
        return jnp.where(self.active_B, self.length_B, 0)


class Written(flax.struct.PyTreeNode):
    """What `decode` wrote in one call: C tokens at most per row, from the row's old length on.

    Attributes:
      tokens_BxC: tokens; only the first `count_B` of a row are meant.
      log_probs_sampled_BxC, log_probs_BxC: nats, under the sampling distribution and at
        temperature 1.
      hidden_BxCxD: the hidden states that the tokens were drawn from.
      count_B: tokens written per row.
    """

    tokens_BxC: jax.Array
    log_probs_sampled_BxC: jax.Array
    log_probs_BxC: jax.Array
    hidden_BxCxD: jax.Array
    count_B: jax.Array


def decode(
    params: Params,
    config: ModelConfig,
    cache: Cache,
    cursor: Cursor,
    keys_B: jax.Array,
    num_tokens: int,
    sampling: Sampling,
    eos_ids: tuple[int, ...],
) -> tuple[Cache, Cursor, Written]:
    """Writes up to `num_tokens` tokens in every active row, by a scan over tokens.

    A row becomes inactive when it has written an end-of-sequence token or reached its limit. The
    cache must have room for `max(length_B) + num_tokens - 1` positions.

    Args:
      params: unstacked parameters.
      keys_B: a key per row; the noise of a token depends on it and on its response position.
    """
    eos = jnp.asarray(eos_ids, jnp.int32)

    def step(carry: tuple[Cache, Cursor], _: None):
        cache, cursor = carry
        token_Bx1, active_Bx1 = cursor.token_B[:, None], cursor.active_B[:, None]
        start_B = cursor.length_B - 1
        hidden, cache = extend(params, config, token_Bx1, start_B, cache, active_Bx1)
        token, log_prob_sampled, log_prob = sample(
            logits(params, config, hidden[:, 0]),
            keys_B,
            cursor.length_B - cursor.origin_B,
            sampling,
        )
        token = jnp.where(cursor.active_B, token, cursor.token_B)
        length = cursor.length_B + cursor.active_B
        ended = jnp.any(token[:, None] == eos, axis=-1) | (length >= cursor.limit_B)
        new = cursor.replace(token_B=token, length_B=length, active_B=cursor.active_B & ~ended)
        return (cache, new), (token, log_prob_sampled, log_prob, hidden[:, 0])

    (cache, new), outputs = jax.lax.scan(step, (cache, cursor), length=num_tokens)
    tokens, log_probs_sampled, log_probs, hidden = (jnp.moveaxis(x, 0, 1) for x in outputs)
    count = new.length_B - cursor.length_B
    return cache, new, Written(tokens, log_probs_sampled, log_probs, hidden, count)


def put(
    buffer_BxN: jax.Array, block_BxC: jax.Array, start_B: jax.Array, count_B: jax.Array
) -> jax.Array:
    """Writes the first `count_B` columns of each row's block into its buffer from `start_B` on."""
    columns = jnp.arange(block_BxC.shape[1])
    slots = jnp.where(columns < count_B[:, None], start_B[:, None] + columns, buffer_BxN.shape[1])
    rows = jnp.arange(buffer_BxN.shape[0])[:, None]
    return buffer_BxN.at[rows, slots].set(block_BxC, mode="drop")


def pick(buffer_BxN: jax.Array, column_B: jax.Array) -> jax.Array:
    """One entry of each row [B]; a negative column reads the first."""
    return jnp.take_along_axis(buffer_BxN, jnp.maximum(column_B, 0)[:, None], axis=1)[:, 0]
