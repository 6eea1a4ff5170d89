"""What rollouts share in which student and teacher both read a text, whoever writes it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.roles import Role
from models.decoding.decode import (
    Cache,
    Cursor,
    Written,
    decode,
    extend,
    unstack,
)
from models.decoding.sampling import Sampling
from models.decoding.slots import Slots, run, whole_batch
from models.parameters import Params

# The student's and the teacher's, by `Role`.
ParamsPair = tuple[Params, Params]
CachePair = tuple[Cache, Cache]


@dataclasses.dataclass(frozen=True, eq=False)
class Writers:
    """Two models that write and read one text; pairs are (student's, teacher's), by `Role`.

    Attributes:
      configs: the models'.
      vocab_size: only ids below it are drawn.
      eos_ids: tokens that end a text.
      settings: how they write: `student_temperature`, `teacher_temperature`, and in tokens
        `max_total`, the longest response, and `chunk`.
    """

    configs: tuple[models.ModelConfig, models.ModelConfig]
    vocab_size: int
    eos_ids: tuple[int, ...]
    settings: Any

    @property
    def chunk_tokens(self) -> int:
        """Most tokens that one of them writes before the other reads them."""
        return min(self.settings.chunk, self.settings.max_total)

    def is_eos(self, tokens: jax.Array) -> jax.Array:
        """Whether tokens [...] end a text [...]."""
        return jnp.isin(tokens, jnp.asarray(self.eos_ids))

    def write(
        self, role: Role, params: ParamsPair, caches: CachePair, cursor: Cursor, keys_B: jax.Array
    ) -> tuple[Cache, Cursor, Written]:
        """One model writes a chunk: its cache, where rows stand then, and what it wrote."""
        model = params[role], self.configs[role], caches[role]
        s = self.settings
        temperature = s.student_temperature if role == Role.STUDENT else s.teacher_temperature
        sampling = Sampling(temperature, vocab_size=self.vocab_size)
        return decode(*model, cursor, keys_B, self.chunk_tokens, sampling, self.eos_ids)

    def follow(
        self, role: Role, params: ParamsPair, caches: CachePair, old: Cursor, written: Written
    ) -> tuple[jax.Array, Cache]:
        """The other model reads the chunk behind `old`: its hidden states [B, C, D] and cache."""
        inputs = jnp.concatenate([old.token_B[:, None], written.tokens_BxC[:, :-1]], axis=1)
        valid = jnp.arange(self.chunk_tokens) < written.count_B[:, None]
        start = old.length_B - 1
        return extend(params[role], self.configs[role], inputs, start, caches[role], valid)

    def slots(self, begin: Any, chunk: Any, progress: Any, finish: Any) -> Slots:
        """A rollout of functions that are given `self` first; its parameters are the pair."""
        return Slots(
            chunk_tokens=self.chunk_tokens,
            reach=2 * self.chunk_tokens,  # both may write a chunk of the same row
            max_tokens=self.settings.max_total,
            prepare=lambda params: tuple(map(unstack, params, self.configs)),
            begin=functools.partial(begin, self),
            chunk=functools.partial(chunk, self),
            progress=progress,
            finish=functools.partial(finish, self),
            configs=self.configs,
        )


def where_any(rows_B: jax.Array, step: Callable[[Any], Any], state: Any) -> Any:
    """The state after `step`, which is run where it concerns any of the rows."""
    return jax.lax.cond(jnp.any(rows_B), step, lambda state: state, state)


def rollout_of(slots: Slots) -> Callable[..., Any]:
    """`rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B], sample_ids [B],
    key)`: what `slots.finish` gives of the whole batch.
    """

    def rollout(
        student_params: Params,
        teacher_params: Params,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        sample_ids: jax.Array,
        key: jax.Array,
    ) -> Any:
        rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
        return run(slots, (student_params, teacher_params), rows)

    return rollout
