"""Rollouts through a fixed number of slots: between chunks finished rows give way to fresh ones.

A static batch is written until its longest row ends; here a slot is refilled as soon as its row has
ended. What is written does not depend on slots, order or company: noise belongs to a row's key and
sample id. Shapes are few, so that nothing compiles once they have been seen: prompts are prefilled,
and rows put in and taken out, so many at a time; prompt widths and capacities are powers of two.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.machine.processes import fetch
from models.decoding.decode import capacities, least_capacity, unstacked
from models.decoding.slots import Progress, Rows, Slots, resize, scatter, take

# The narrowest prompts, in tokens, and the fewest slots that the last rows are moved to.
_MIN_WIDTH, _MIN_SLOTS = 16, 4
# Requests looked at beyond the slots, to find prompts worth prefilling together.
_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Request:
    """A row to be written.

    Attributes:
      prompt: token ids, at least one.
      sample_id: the row's identity within its round.
      key: the round's key, as `key_data` gives it.
      payload: whatever the caller wants back with the row.
      budget: most tokens of the response, in place of the rollout's own limit if less.
    """

    prompt: tuple[int, ...]
    sample_id: int
    key: np.ndarray
    payload: Any = None
    budget: int | None = None


def key_data(key: jax.Array) -> np.ndarray:
    """A key as a `Request` carries it."""
    return np.asarray(jax.random.key_data(key))


@dataclasses.dataclass
class Report:
    """What an engine did since it was made.

    Attributes:
      rows, tokens: finished, and tokens of the responses that were decoded and stand.
      chunks: calls of the rollout's chunk.
      slot_steps: decode steps of all slots; `active_steps` of them wrote a token that stands.
      prefilled: prompts.
      seconds: from the first request to the last row, the consumer's time included.
    """

    rows: int = 0
    tokens: int = 0
    chunks: int = 0
    slot_steps: int = 0
    active_steps: int = 0
    prefilled: int = 0
    seconds: float = 0.0

    @property
    def occupancy(self) -> float:
        """Share of the slots' steps that wrote a token that stands."""
        return self.active_steps / max(self.slot_steps, 1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty(slots: Slots, count: int, width: int, capacity: int) -> Any:
    ones = jnp.ones(count, jnp.int32)
    keys = jnp.broadcast_to(jax.random.key(0), (count,))
    rows = Rows(jnp.zeros((count, width), jnp.int32), ones, keys, ones, 0 * ones)
    return slots.pinned(slots.begin(slots.init_caches(count, capacity), rows))


@functools.partial(jax.jit, static_argnums=0)
def _prefill(slots: Slots, params: Any, prompts_UxP: jax.Array, lengths_U: jax.Array) -> Any:
    return slots.prefill(params, prompts_UxP, lengths_U, slots.init_caches(*prompts_UxP.shape))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _admit(
    slots: Slots,
    width: int,
    state: Any,
    prefilled: tuple[Any, jax.Array, jax.Array],
    table_Rx4: jax.Array,
    keys_R: jax.Array,
) -> Any:
    """Puts fresh rows in slots; `table`: slot, place among the prefilled, sample id, budget."""
    caches, prompts, lengths = take(prefilled, table_Rx4[:, 1])
    rows = Rows(
        prompts_BxP=jnp.pad(prompts, ((0, 0), (0, width - prompts.shape[1]))),
        lengths_B=lengths,
        keys_B=jax.random.wrap_key_data(keys_R),
        ids_B=table_Rx4[:, 2],
        budgets_B=table_Rx4[:, 3],
    )
    return slots.pinned(scatter(state, table_Rx4[:, 0], slots.begin(caches, rows)))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _chunk(slots: Slots, params: Any, state: Any) -> tuple[Any, Progress]:
    state = slots.pinned(slots.chunk(params, state))
    return state, slots.progress(state)


@functools.partial(jax.jit, static_argnums=0)
def _finish(slots: Slots, state: Any, rows_R: jax.Array) -> Any:
    return slots.finish(take(state, rows_R))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _resize(slots: Slots, state: Any, capacity: int) -> Any:
    return slots.pinned(resize(state, capacity))


@functools.partial(jax.jit, static_argnums=0)
def _take(slots: Slots, state: Any, rows_R: jax.Array) -> Any:
    return slots.pinned(take(state, rows_R))


def programs() -> int:
    """How many programs engines have compiled in this process."""
    jitted = (_empty, unstacked, _prefill, _admit, _chunk, _finish, _resize, _take)
    return sum(f._cache_size() for f in jitted)  # type: ignore[attr-defined]


class _Prefilled:
    """Prompts whose caches are on the device; any number of rows begins from each."""

    def __init__(self, slots: Slots, params: Any, prompts: Sequence[tuple[int, ...]], shape: Any):
        self.place = {prompt: i for i, prompt in enumerate(prompts)}
        prompts_UxP = np.zeros(shape, np.int32)
        lengths_U = np.ones(shape[0], np.int32)
        for i, prompt in enumerate(prompts):
            prompts_UxP[i, : len(prompt)], lengths_U[i] = prompt, len(prompt)
        caches = _prefill(slots, params, prompts_UxP, lengths_U)
        self.width = shape[1]
        self.arrays = caches, prompts_UxP, lengths_U


class Engine:
    """Slots for one rollout; may run any number of queues, one after the other.

    Args:
      slots: the rollout's parts. Programs are compiled once for each: keep it.
      count: rows that are written at the same time.
      width: of the longest prompt, in tokens.
      multiple: rows are held in multiples of this; on a mesh, its devices along the batch.

    Attributes:
      report: what was done so far.

    Raises:
      ValueError: no slots.
    """

    def __init__(self, slots: Slots, count: int, width: int, multiple: int = 1):
        if count < 1:
            raise ValueError(f"slots={count} must be at least 1.")
        self.slots, self.width = slots, width
        self.multiple = multiple
        self.count = self._rounded(count)
        # Rows put in or taken out, and prompts prefilled, in one call.
        self.refill = self._rounded(1 << max(self.count // 4, 1).bit_length() - 1)
        self.total = width + slots.max_tokens
        self._capacities = capacities(1, self.total, least_capacity(slots.configs))
        self.report = Report()

    def run(self, params: Any, requests: Iterable[Request]) -> Iterator[tuple[Any, list[Request]]]:
        """Writes all that is requested.

        Args:
          params: as `slots.prepare` takes them.
          requests: read as slots come free, a few ahead.

        Yields:
          What the rollout gives of rows that have just finished, as host arrays with rows first,
          and their requests. The device goes on meanwhile.

        Raises:
          ValueError: a prompt is empty or wider than `width`.
        """
        started = time.monotonic()
        run = _Run(self, self.slots.prepare(params), requests)
        try:
            yield from run.rows()
        finally:
            self.report.seconds += time.monotonic() - started

    def capacity(self, needed: int) -> int:
        """The smallest stage with room for so many positions."""
        return next(c for c in self._capacities if c >= min(needed, self.total))

    def _rounded(self, rows: int) -> int:
        return -(-rows // self.multiple) * self.multiple

    def narrowed(self, count: int) -> int:
        """To how many slots the last rows move from `count`."""
        fewer = self._rounded(max(count // 4, _MIN_SLOTS))
        return min(fewer, count)


class _Run:
    """One queue on its way through the slots.

    Attributes:
      seated: the request in each slot, None where it is free.
      length_B: cache positions of the rows in the slots, 0 where none is written.
    """

    def __init__(self, engine: Engine, params: Any, requests: Iterable[Request]):
        self.engine, self.slots, self.params = engine, engine.slots, params
        self.queue = iter(requests)
        self.waiting: collections.deque[Request] = collections.deque()
        self.prefilled: _Prefilled | None = None
        self.seated: list[Request | None] = [None] * engine.count
        self.length_B = np.zeros(engine.count, np.int64)
        self.written_B = np.zeros(engine.count, np.int64)
        self.capacity = 0
        self.state: Any = None

    def rows(self) -> Iterator[tuple[Any, list[Request]]]:
        finished: list[tuple[Any, list[Request]]] = []
        while self._look_ahead() or any(self.seated):
            self._narrow()
            self._admit()
            self._fit()
            self.state, progress = _chunk(self.slots, self.params, self.state)
            for outputs, requests in finished:  # read while the device is at work
                yield jax.tree.map(lambda x: x[: len(requests)], fetch(outputs)), requests  # noqa: B023
            self._account(fetch(progress))
            finished = list(self._harvest())
        for outputs, requests in finished:
            yield jax.tree.map(lambda x: x[: len(requests)], fetch(outputs)), requests  # noqa: B023

    def _look_ahead(self) -> bool:
        missing = _AHEAD * len(self.seated) - len(self.waiting)
        self.waiting.extend(itertools.islice(self.queue, max(missing, 0)))
        return bool(self.waiting)

    def _admit(self) -> None:
        """Fills free slots from the queue, a group of rows that share a prefill at a time."""
        free = [b for b, request in enumerate(self.seated) if request is None]
        while free and self.waiting:
            if self.prefilled is None or self.waiting[0].prompt not in self.prefilled.place:
                self.prefilled = self._prefill()
            group: list[Request] = []
            most = min(self.engine.refill, len(free))
            while len(group) < most and self.waiting:
                if self.waiting[0].prompt not in self.prefilled.place:
                    break
                group.append(self.waiting.popleft())
            places, free = free[: len(group)], free[len(group) :]
            for b, request in zip(places, group, strict=True):
                self.seated[b] = request
                self.length_B[b], self.written_B[b] = len(request.prompt), 0
            self._fit(self.prefilled.width)
            self._seat(places, group)

    def _prefill(self) -> _Prefilled:
        prompts: dict[tuple[int, ...], None] = {}
        for request in self.waiting:
            if not 0 < len(request.prompt) <= self.engine.width:
                raise ValueError(
                    f"A prompt has {len(request.prompt)} tokens; it must have 1 to "
                    f"{self.engine.width}."
                )
            prompts[request.prompt] = None
            if len(prompts) == self.engine.refill:
                break
        width = 1 << (max(map(len, prompts)) - 1).bit_length()
        width = min(max(width, _MIN_WIDTH), self.engine.width)
        self.engine.report.prefilled += len(prompts)
        return _Prefilled(self.slots, self.params, list(prompts), (self.engine.refill, width))

    def _seat(self, places: Sequence[int], group: Sequence[Request]) -> None:
        assert self.prefilled is not None
        most = self.slots.max_tokens
        table = np.zeros((self.engine.refill, 4), np.int32)
        table[:, 0] = len(self.seated)  # beyond the last slot: dropped
        keys = np.zeros((self.engine.refill, *group[0].key.shape), group[0].key.dtype)
        for i, (b, request) in enumerate(zip(places, group, strict=True)):
            budget = most if request.budget is None else min(request.budget, most)
            table[i] = b, self.prefilled.place[request.prompt], request.sample_id, budget
            keys[i] = request.key
        self.state = _admit(
            self.slots, self.engine.width, self.state, self.prefilled.arrays, table, keys
        )

    def _fit(self, least: int = 0) -> None:
        """Gives the caches the capacity that the next chunk needs."""
        needed = int(self.length_B.max()) + self.slots.reach
        capacity = self.engine.capacity(max(needed, least))
        if self.state is None:
            self.state = _empty(self.slots, len(self.seated), self.engine.width, capacity)
        elif capacity > self.capacity or capacity * 4 <= self.capacity:
            self.state = _resize(self.slots, self.state, capacity)
        else:
            return
        self.capacity = capacity

    def _account(self, progress: Progress) -> None:
        report, steps = self.engine.report, self.slots.chunk_tokens
        seated = np.array([request is not None for request in self.seated])
        new = np.where(seated, progress.written_B - self.written_B, 0)
        report.chunks += 1
        report.slot_steps += len(seated) * steps
        report.active_steps += int(np.clip(new, 0, steps).sum())
        report.tokens += int(new.sum())
        self.written_B = np.where(seated, progress.written_B, 0).astype(np.int64)
        self.length_B = np.where(seated, progress.length_B, 0).astype(np.int64)

    def _harvest(self) -> Iterator[tuple[Any, list[Request]]]:
        """Frees the slots of rows that are done; what they give is on its way."""
        done = [b for b, r in enumerate(self.seated) if r is not None and not self.length_B[b]]
        size = self.engine.refill
        for start in range(0, len(done), size):
            rows = done[start : start + size]
            outputs = _finish(self.slots, self.state, np.resize(np.array(rows, np.int32), size))
            requests = [request for b in rows if (request := self.seated[b]) is not None]
            for b in rows:
                self.seated[b] = None
            self.engine.report.rows += len(rows)
            yield outputs, requests

    def _narrow(self) -> None:
        """Moves the last rows to fewer slots: nobody is left to take the others."""
        count = len(self.seated)
        fewer = self.engine.narrowed(count)
        taken = [b for b, request in enumerate(self.seated) if request is not None]
        if self.waiting or fewer == count or len(taken) > fewer:
            return
        free = [b for b, request in enumerate(self.seated) if request is None]
        rows = np.array([*taken, *free][:fewer], np.int32)
        self.state = _take(self.slots, self.state, rows)
        self.seated = [self.seated[b] for b in rows]
        self.length_B, self.written_B = self.length_B[rows], self.written_B[rows]
