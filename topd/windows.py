"""Near futures: student and teacher both continue from the same prefix, by moving lengths back.

One pass of each model over the rollouts fills its cache. A window that opens at position t then
moves the row's length to t and decodes: its tokens overwrite the slots from t - 1 on, which later
windows need no more, because a row's windows are opened from the last to the first. Nothing is
copied, and no prefix is run twice. B rows, T tokens, W windows, K tokens of a window.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

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
      student_vectors_BxWxKxD, teacher_vectors_BxWxKxD: the tokens, embedded by the student.
    """

    starts: Starts
    student_BxWxK: jax.Array
    teacher_BxWxK: jax.Array
    student_counts_BxW: jax.Array
    teacher_counts_BxW: jax.Array
    student_vectors_BxWxKxD: jax.Array
    teacher_vectors_BxWxKxD: jax.Array


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
    t = trajectories
    tokens, segments = t.tokens_BxT[:, :-1], t.segment_ids_BxT[:, :-1]
    keys, values = [], []

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        keys.append(k)
        values.append(v)
        return attention(q, k, v, segments, config)

    x = embed(params, config, tokens)
    for layer in params["layers"]:
        x = block(x, layer, config, t.positions_BxT[:, :-1], attend)

    def stored(x_BxTxHkxDh: jax.Array) -> jax.Array:
        x = jnp.pad(jnp.swapaxes(x_BxTxHkxDh, 1, 2), ((0, 0), (0, 0), (0, 1 + room), (0, 0)))
        return constrain(x, ("batch", "kv_heads", None, None), config.mesh, config.rules)

    cache = Cache(k=tuple(map(stored, keys)), v=tuple(map(stored, values)))
    return Reading(rms_norm(x, params["final_norm"], config.norm_eps), cache)


def _write(
    role: Role,
    params: Params,
    config: models.ModelConfig,
    sampling: Sampling,
    columns_K: jax.Array,
    eos_ids: tuple[int, ...],
    rollouts: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    cache: Cache,
    at_B: jax.Array,
    valid_B: jax.Array,
) -> tuple[Cache, jax.Array, jax.Array]:
    """One model continues the prefixes that end before `at_B`: cache, tokens [B, K], counts [B].

    Args:
      columns_K: 0 to K - 1.
      rollouts: their tokens [B, T], prompt lengths [B] and sample ids [B], and their key.
    """
    tokens_BxT, prompt_lengths_B, sample_ids_B, key = rollouts
    width = columns_K.shape[0]
    token_B = jnp.take_along_axis(tokens_BxT, at_B[:, None] - 1, axis=1)[:, 0]
    cursor = Cursor(token_B, at_B, at_B + width, prompt_lengths_B, valid_B)
    keys_B = jax.vmap(
        lambda at, i: jax.random.fold_in(
            role_key(key, Role.PROBE, _FIRST_ATTEMPT + 2 * at + role), i
        )
    )(at_B, sample_ids_B)
    cache, _, written = decode(params, config, cache, cursor, keys_B, width, sampling, eos_ids)
    inside = columns_K < written.count_B[:, None]
    return cache, jnp.where(inside, written.tokens_BxC, 0), written.count_B


def _reuse(
    tokens_BxT: jax.Array,
    ends_B: jax.Array,
    columns_K: jax.Array,
    at_B: jax.Array,
    valid_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What rollouts that end at `ends_B` hold themselves: tokens [B, K] and counts [B]."""
    count_B = jnp.where(valid_B, jnp.clip(ends_B - at_B, 0, columns_K.shape[0]), 0)
    places = jnp.clip(at_B[:, None] + columns_K, 0, tokens_BxT.shape[1] - 1)
    tokens = jnp.take_along_axis(tokens_BxT, places, axis=1)
    return jnp.where(columns_K < count_B[:, None], tokens, 0), count_B


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
) -> Windows:
    """Continues every prefix with both models.

    Args:
      student, teacher: unstacked parameters, config, and the cache of `read`. The student's may be
        None where it neither writes nor is asked for its hidden states (see `student_reads`).
      sample_ids_B, key: those of the rollout: the noise of a window belongs to its role and its
        first position, and is no rollout's.
      eos_ids: tokens that end a window.
      vocab_size: ids from here on are not written.
    """
    t, columns_K = trajectories, jnp.arange(settings.tokens)
    prompt_lengths_B = jnp.sum(t.source_BxT == Source.PROMPT, axis=1)
    ends_B = jnp.sum(t.source_BxT != Source.PADDING, axis=1)
    sampling = Sampling(settings.temperature, vocab_size=vocab_size)
    rollouts = t.tokens_BxT, prompt_lengths_B, sample_ids_B, key
    s_params, s_config, _ = student
    write = {
        role: functools.partial(
            _write, role, *model[:2], sampling, columns_K, tuple(eos_ids), rollouts
        )
        for role, model in ((Role.STUDENT, student), (Role.TEACHER, teacher))
    }
    # From the last to the first: a window overwrites what lies behind its prefix, and only that.
    order_BxW = jnp.argsort(jnp.where(starts.valid_BxW, -starts.at_BxW, 1), axis=1)
    at_WxB, valid_WxB = (
        jnp.moveaxis(jnp.take_along_axis(x, order_BxW, axis=1), 1, 0)
        for x in (starts.at_BxW, starts.valid_BxW)
    )

    def step(
        caches: tuple[Cache | None, Cache], start: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Cache | None, Cache], tuple[jax.Array, ...]]:
        student_cache, teacher_cache = caches
        if settings.student == "reuse":
            own, own_count = _reuse(t.tokens_BxT, ends_B, columns_K, *start)
        else:
            assert student_cache is not None
            student_cache, own, own_count = write[Role.STUDENT](student_cache, *start)
        teacher_cache, theirs, their_count = write[Role.TEACHER](teacher_cache, *start)
        vectors = []
        for tokens, count in ((own, own_count), (theirs, their_count)):
            if transport.embedding == "static":
                vectors.append(embed(s_params, s_config, tokens))
                continue
            assert student_cache is not None
            inside = columns_K < count[:, None]
            hidden, student_cache = extend(
                s_params, s_config, tokens, start[0], student_cache, inside
            )
            vectors.append(hidden)
        return (student_cache, teacher_cache), (own, theirs, own_count, their_count, *vectors)

    _, found = jax.lax.scan(step, (student[2], teacher[2]), (at_WxB, valid_WxB))
    back_BxW = jnp.argsort(order_BxW, axis=1)

    def as_given(x: jax.Array) -> jax.Array:
        """[W, B, ...] in scanning order to [B, W, ...] in the order of `starts`."""
        x = jnp.moveaxis(x, 0, 1)
        return jnp.take_along_axis(x, back_BxW.reshape(*back_BxW.shape, *[1] * (x.ndim - 2)), 1)

    return Windows(starts, *map(as_given, found))


def student_reads(settings: WindowSettings, transport: TransportSettings) -> bool:
    """Whether windows need the student's cache."""
    return settings.student == "regenerate" or transport.embedding == "contextual"


def prepare(params: Params, config: models.ModelConfig) -> Params:
    """Parameters as these functions want them, without a gradient."""
    return unstack(jax.lax.stop_gradient(params), config)
