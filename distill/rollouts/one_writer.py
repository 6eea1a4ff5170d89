"""One model writes the whole response: on-policy rollouts, or a teacher's traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.arguments import arguments_of, common_ids
from distill.roles import Role, role_key
from distill.rollouts.assembly import Train, assemble
from distill.trajectories import Source, Trajectories
from models.checks import Count, require
from models.decoding.decode import Cache, check_ends, put
from models.decoding.generate import WritingState
from models.decoding.generate import make_slots as make_writing
from models.decoding.sampling import Sampling
from models.decoding.slots import Rows, Slots, run, whole_batch
from models.parameters import Params

SOURCES = {Role.STUDENT: Source.STUDENT, Role.TEACHER: Source.TEACHER}

Rollout = Callable[[Params, jax.Array, jax.Array, jax.Array, jax.Array], Trajectories]


def make_slots(
    config: models.ModelConfig,
    sampling: Sampling,
    max_tokens: int,
    eos_ids: Sequence[int],
    role: Role = Role.STUDENT,
    vocab_size: int | None = None,
    train: Train = "divergence",
) -> Slots:
    """One model writing responses, in parts; they end in `Trajectories`.

    Args:
      sampling: temperature and filters; its `vocab_size` and the argument both hold.
      max_tokens: a response ends here if no end of sequence came before.
      eos_ids: tokens that end a response.
      role: whose text it is: decides the noise and the `Source` of the tokens. The student's is
        that of MOTAB's student: with gamma_0 = 0 the trajectories are the same.
      vocab_size: only ids below it are sampled: those that both models and the tokenizer know.
      train: `likelihood`, `divergence` or `none`: the weight that response tokens carry.

    Raises:
      ValueError: no end-of-sequence token, no budget, a role that writes nothing, or an unknown
        `train`.
    """
    eos_ids = check_ends(eos_ids)
    require("max_tokens", max_tokens, Count)
    if role not in SOURCES:
        raise ValueError(f"role={role!r}: choose Role.STUDENT or Role.TEACHER.")
    require("train", train, Train)
    vocab = common_ids(config.vocab_size, vocab_size, sampling.vocab_size)
    sampling = dataclasses.replace(sampling, vocab_size=vocab)
    writing = make_writing(config, sampling, max_tokens, eos_ids)

    def begin(caches: tuple[Cache, ...], rows: Rows) -> WritingState:
        keys = jax.vmap(lambda key: role_key(key, role, 0))(rows.keys_B)
        return writing.begin(caches, rows.replace(keys_B=keys))

    def finish(state: WritingState) -> Trajectories:
        first, written = state.cursor.origin_B, state.written
        text = jnp.pad(state.prompts_BxP, ((0, 0), (0, max_tokens)))
        text = put(text, written.tokens_BxN, first, written.lengths_B)
        writers = jnp.full_like(text, SOURCES[role])
        return assemble(text, writers, first, first + written.lengths_B, train)

    return dataclasses.replace(writing, begin=begin, finish=finish)


@arguments_of(make_slots)
def make_rollout(*args: Any, **kwargs: Any) -> Rollout:
    """Builds the pure function by which one model writes responses.

    Args:
      args, kwargs: the arguments of `make_slots`.

    Returns:
      `rollout(params, prompts [B, P], prompt_lengths [B], sample_ids [B], key) ->
      Trajectories [B, P + max_tokens]`, to be jitted by the caller.

    Raises:
      ValueError: as `make_slots`.
    """
    slots = make_slots(*args, **kwargs)

    def rollout(
        params: Params,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        sample_ids: jax.Array,
        key: jax.Array,
    ) -> Trajectories:
        rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
        return run(slots, params, rows)

    return rollout
