"""A rollout cut into parts: from a static batch to slots whose rows come and go.

A rollout says how a prompt is prefilled, how a row begins, what a chunk does and what comes out of
a finished row. `run` drives a whole batch to its end inside jit; an engine outside of jit calls the
same functions, and between chunks takes finished rows out (`take`) and puts fresh ones in
(`scatter`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.decoding.decode import (
    Cache,
    Cursor,
    capacities,
    constrain_cache,
    init_cache,
    least_capacity,
    pick,
    prefill,
    resize_cache,
)
from models.parameters import Params
from models.sharding import constrain_rows

TreeT = TypeVar("TreeT")


class Rows(flax.struct.PyTreeNode):
    """What rows are to be written.

    Attributes:
      prompts_BxP: token ids, right-padded.
      lengths_B: of the prompts, at least 1.
      keys_B: the key of each row's round.
      ids_B: sample ids: the noise of a row belongs to its key and its id.
      budgets_B: most tokens of each response; 0 writes nothing.
    """

    prompts_BxP: jax.Array
    lengths_B: jax.Array
    keys_B: jax.Array
    ids_B: jax.Array
    budgets_B: jax.Array

    def cursor(self) -> Cursor:
        """Where rows stand before their first token: decoding feeds the prompt's last one first."""
        return Cursor(
            token_B=pick(self.prompts_BxP, self.lengths_B - 1),
            length_B=self.lengths_B,
            limit_B=self.lengths_B + self.budgets_B,
            origin_B=self.lengths_B,
            active_B=self.budgets_B > 0,
        )


class State(Protocol):
    """What a rollout carries from chunk to chunk: a pytree with rows first in every leaf."""

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Keys and values of every model, each with the same capacity."""
        ...

    def replace(self, **changes: Any) -> Any:
        """A copy with other fields."""
        ...


class Progress(flax.struct.PyTreeNode):
    """How far rows are.

    Attributes:
      length_B: tokens of the text that is being written, prompt included; 0 in a row that is done.
      written_B: tokens of the response so far that were decoded and stand.
    """

    length_B: jax.Array
    written_B: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Slots:
    """A rollout in parts, all pure; jit takes it as a static argument, by identity.

    Attributes:
      chunk_tokens: most tokens that a chunk decodes of a row's text.
      reach: cache positions that a row may come to need in one chunk.
      max_tokens: the longest response, in cache positions.
      prepare: parameters as given to parameters as decoding wants them, a tuple of each model's;
        once per rollout.
      begin: (caches, rows) to the state before the first chunk. The caches may hold fewer
        positions than the prompts are wide.
      chunk: (parameters, state) to state.
      progress: state to `Progress`.
      finish: state to what the rollout gives, rows first in every leaf. Rows that are not done give
        what they have.
      configs: of the models that the state's caches belong to; their mesh is the state's.
    """

    chunk_tokens: int
    reach: int
    max_tokens: int
    prepare: Callable[[Any], tuple[Params, ...]]
    begin: Callable[[tuple[Cache, ...], Rows], Any]
    chunk: Callable[[Any, Any], Any]
    progress: Callable[[Any], Progress]
    finish: Callable[[Any], Any]
    configs: tuple[ModelConfig, ...]

    def init_caches(self, batch: int, capacity: int) -> tuple[Cache, ...]:
        """Empty caches of every model."""
        return tuple(init_cache(config, batch, capacity) for config in self.configs)

    def prefill(
        self,
        params: tuple[Params, ...],
        prompts_UxP: jax.Array,
        lengths_U: jax.Array,
        caches: tuple[Cache, ...],
    ) -> tuple[Cache, ...]:
        """Caches that hold every prompt token but the last, of empty ones."""
        each = zip(params, self.configs, caches, strict=True)
        return tuple(prefill(p, config, prompts_UxP, lengths_U, cache) for p, config, cache in each)

    def pinned(self, state: Any) -> Any:
        """The state with every array at its place on the mesh; as it is where there is none."""
        caches, config = state.caches, self.configs[0]
        rest = constrain_rows(state.replace(caches=()), config.mesh, config.rules, "rollout state")
        pairs = zip(caches, self.configs, strict=True)
        return rest.replace(caches=tuple(constrain_cache(cache, c) for cache, c in pairs))


def whole_batch(
    slots: Slots, prompts_BxP: jax.Array, lengths_B: jax.Array, key: jax.Array, ids_B: jax.Array
) -> Rows:
    """Rows of one round, each with the whole budget."""
    batch = prompts_BxP.shape[0]
    keys = jnp.broadcast_to(key, (batch, *key.shape))
    return Rows(prompts_BxP, lengths_B, keys, ids_B, jnp.full(batch, slots.max_tokens))


def run(slots: Slots, params: Any, rows: Rows) -> Any:
    """The rollout of a batch until its last row is done. Pure; what `slots.finish` gives."""
    params = slots.prepare(params)
    batch, width = rows.prompts_BxP.shape
    least = least_capacity(slots.configs)
    sizes = capacities(width + slots.reach, width + slots.max_tokens, least)
    caches = slots.init_caches(batch, sizes[0])
    caches = slots.prefill(params, rows.prompts_BxP, rows.lengths_B, caches)
    state = slots.pinned(slots.begin(caches, rows))
    for size in sizes:

        def more(state: Any, size: int = size) -> jax.Array:
            longest = jnp.max(slots.progress(state).length_B)
            # At the last size, budgets keep every row within it.
            return (longest > 0) & ((size == sizes[-1]) | (longest + slots.reach <= size))

        state = jax.lax.while_loop(
            more,
            lambda state: slots.pinned(slots.chunk(params, state)),
            slots.pinned(resize(state, size)),
        )
    return slots.finish(state)


def resize(state: Any, capacity: int) -> Any:
    """The same state with room for `capacity` positions; rows must not hold more than that."""
    return state.replace(caches=tuple(resize_cache(cache, capacity) for cache in state.caches))


def take(tree: TreeT, rows_R: jax.Array) -> TreeT:
    """These rows of every leaf."""
    return jax.tree.map(lambda x: x[rows_R], tree)


def scatter(tree: TreeT, rows_R: jax.Array, fresh: TreeT) -> TreeT:
    """Puts rows in place of others; a row number beyond the last is dropped.

    A fresh leaf may be smaller along other axes: it overwrites the leading part, as prompts do in a
    cache.
    """

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        sizes = zip(new.shape[1:], x.shape[1:], strict=True)
        leading = tuple(slice(None) if m == n else slice(m) for m, n in sizes)
        return x.at[(rows_R, *leading)].set(new, mode="drop")

    return jax.tree.map(put, tree, fresh)
