"""Near futures: student and teacher both continue from the same prefix, by moving lengths back.

One pass of each model over the rollouts fills its cache. A window that opens at position t then
moves the row's length to t and decodes: its tokens overwrite the slots from t - 1 on, which later
windows need no more, because a row's windows are opened from the last to the first. Nothing is
copied, and no prefix is run twice. B rows, T tokens, W windows, K tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.roles import Role, role_key
from distill.trajectories import Source, Trajectories
from models.attention import attention
from models.decoding.decode import Cache, Cursor, decode, extend, unstack
from models.decoding.sampling import Sampling
from models.parameters import Params
from models.sharding import constrain
from models.transformer import block, embed, rms_norm
from topd.candidates import Starts
from topd.settings import TransportSettings, WindowSettings

# Attempts of `Role.PROBE` from here on are windows': two for every position, one for each model.
_FIRST_ATTEMPT = 2


class Windows(flax.struct.PyTreeNode):
    """Two continuations of each prefix, padded with zeros.

    Attributes:
      starts: where they begin.
      student_BxWxK, teacher_BxWxK: tokens, an end of sequence included.
      student_counts_BxW, teacher_counts_BxW: how many; 0 where there is no window.
    """

    starts: Starts
    student_BxWxK: jax.Array
    teacher_BxWxK: jax.Array
    student_counts_BxW: jax.Array
    teacher_counts_BxW: jax.Array


class Reading(flax.struct.PyTreeNode):
    """A model that has read rollouts.

    Attributes:
      hidden_BxTxD: what predicts the tokens from the second on: T - 1 states.
      cache: keys and values, with room for a window behind the last token.
    """

    hidden_BxTxD: jax.Array
    cache: Cache


def read(
    params: Params, config: models.ModelConfig, trajectories: Trajectories, room: int
) -> Reading:
    """One pass over the rollouts, by the config's attention kernel.

    What stands in a row's padding goes into the cache, too, beyond its length: it is not read.

    Args:
      params: unstacked.
      trajectories: rows that are not packed: slots of a cache are positions.
      room: positions that the cache has beyond the rollouts' T.
    """
    tokens, positions, segments = trajectories.inputs
    keys, values = [], []

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        keys.append(k)
        values.append(v)
        return attention(q, k, v, segments, config)

    x = embed(params, config, tokens)
    for layer in params["layers"]:
        x = block(x, layer, config, positions, attend)

    def stored(x_BxTxHkxDh: jax.Array) -> jax.Array:
        x = jnp.pad(jnp.swapaxes(x_BxTxHkxDh, 1, 2), ((0, 0), (0, 0), (0, 1 + room), (0, 0)))
        return constrain(x, ("batch", "kv_heads", None, None), config.mesh, config.rules)

    cache = Cache(k=tuple(map(stored, keys)), v=tuple(map(stored, values)))
    return Reading(rms_norm(x, params["final_norm"], config.norm_eps), cache)


def open_windows(
    student: tuple[Params, models.ModelConfig, Cache | None],
    teacher: tuple[Params, models.ModelConfig, Cache],
    trajectories: Trajectories,
    starts: Starts,
    sample_ids_B: jax.Array,
    key: jax.Array,
    settings: WindowSettings,
    transport: TransportSettings,
    eos_ids: Sequence[int],
    vocab_size: int,
) -> tuple[Windows, tuple[jax.Array, jax.Array]]:
    """Continues every prefix with both models.

    Args:
      student, teacher: unstacked parameters, config, and the cache of `read`. The student's may be
        None where it neither writes nor is asked for its hidden states (see `student_reads`).
      sample_ids_B, key: those of the rollout: the noise of a window belongs to its role and its
        first position, and is no rollout's.
      eos_ids: tokens that end a window.
      vocab_size: ids from here on are not written.

    Returns:
      The windows, and the tokens of the student's and of the teacher's as the student embeds them,
      each [B, W, K, D].
    """
    t, columns_K = trajectories, jnp.arange(settings.tokens)
    prompt_lengths_B = jnp.sum(t.source_BxT == Source.PROMPT, axis=1)
    ends_B = jnp.sum(t.source_BxT != Source.PADDING, axis=1)
    sampling = Sampling(settings.temperature, vocab_size=vocab_size)
    # From the last to the first: a window overwrites what lies behind its prefix, and only that.
    order_BxW = jnp.argsort(jnp.where(starts.valid_BxW, -starts.at_BxW, 1), axis=1)
    at_WxB, valid_WxB = (
        jnp.moveaxis(jnp.take_along_axis(x, order_BxW, axis=1), 1, 0)
        for x in (starts.at_BxW, starts.valid_BxW)
    )

    def write(
        role: Role, model: tuple[Params, models.ModelConfig, Any], cache: Any, start: Any
    ) -> Any:
        """One model goes on behind the prefixes: its cache, and tokens [B, K] and counts [B]."""
        at_B, valid_B = start
        token_B = jnp.take_along_axis(t.tokens_BxT, at_B[:, None] - 1, axis=1)[:, 0]
        cursor = Cursor(token_B, at_B, at_B + settings.tokens, prompt_lengths_B, valid_B)
        attempts_B = _FIRST_ATTEMPT + 2 * at_B + role
        keys_B = jax.vmap(lambda n, i: jax.random.fold_in(role_key(key, Role.PROBE, n), i))(
            attempts_B, sample_ids_B
        )
        cache, _, written = decode(
            *model[:2], cache, cursor, keys_B, settings.tokens, sampling, tuple(eos_ids)
        )
        inside = columns_K < written.count_B[:, None]
        return cache, (jnp.where(inside, written.tokens_BxC, 0), written.count_B)

    def reuse(at_B: jax.Array, valid_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the rollouts hold there themselves: tokens [B, K] and counts [B]."""
        count_B = jnp.where(valid_B, jnp.clip(ends_B - at_B, 0, settings.tokens), 0)
        places = jnp.clip(at_B[:, None] + columns_K, 0, t.tokens_BxT.shape[1] - 1)
        tokens = jnp.take_along_axis(t.tokens_BxT, places, axis=1)
        return jnp.where(columns_K < count_B[:, None], tokens, 0), count_B

    def vectors(written: tuple[jax.Array, jax.Array], at_B: jax.Array, cache: Any) -> Any:
        """Tokens as the student embeds them [B, K, D], and its cache."""
        tokens, count_B = written
        if transport.embedding == "static":
            return embed(*student[:2], tokens), cache
        return extend(*student[:2], tokens, at_B, cache, columns_K < count_B[:, None])

    def step(caches: Any, start: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        own_cache, their_cache = caches
        if settings.student == "reuse":
            own = reuse(*start)
        else:
            own_cache, own = write(Role.STUDENT, student, own_cache, start)
        their_cache, theirs = write(Role.TEACHER, teacher, their_cache, start)
        own_vectors, own_cache = vectors(own, start[0], own_cache)
        their_vectors, own_cache = vectors(theirs, start[0], own_cache)
        found = own[0], theirs[0], own[1], theirs[1], own_vectors, their_vectors
        return (own_cache, their_cache), found

    _, found = jax.lax.scan(step, (student[2], teacher[2]), (at_WxB, valid_WxB))
    back_BxW = jnp.argsort(order_BxW, axis=1)

    def as_given(x: jax.Array) -> jax.Array:
        """[W, B, ...] in scanning order to [B, W, ...] in the order of `starts`."""
        x = jnp.moveaxis(x, 0, 1)
        return jnp.take_along_axis(x, back_BxW.reshape(*back_BxW.shape, *[1] * (x.ndim - 2)), 1)

    *texts, own_vectors, their_vectors = map(as_given, found)
    return Windows(starts, *texts), (own_vectors, their_vectors)


def student_reads(settings: WindowSettings, transport: TransportSettings) -> bool:
    """Whether windows need the student's cache."""
    return settings.student == "regenerate" or transport.embedding == "contextual"


def prepare(params: Params, config: models.ModelConfig) -> Params:
    """Parameters as these functions want them, without a gradient."""
    return unstack(jax.lax.stop_gradient(params), config)
