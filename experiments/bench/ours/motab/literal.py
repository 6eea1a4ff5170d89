"""MOTAB as one writes it down (Algorithm 1): step by step, and every call of the teacher by itself.

The student writes one step; the teacher passes over prompt and text so far, from the beginning;
where the step is unsafe, it continues from the last safe state, the prefix prefilled anew. For one
prompt at a time, or for a batch in lockstep whose breached rows are corrected together in the end.
The student does keep its cache from step to step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill.roles import Role, role_key
from experiments.bench.ours.motab.pieces import score, start, write, write_step
from experiments.bench.ours.motab.setup import Setup, make_setup
from experiments.bench.peers.bench_protocol import Session
from models.decoding.decode import Cursor, init_cache, unstack
from models.decoding.sampling import row_keys
from motab.credit import find_backtrack


def measure(session: Session) -> None:
    """All prompts, one after the other or in batches."""
    setup = make_setup(session)
    rows = setup.shape["batch"] if "batched" in session.request["variant"] else 1
    loop = _Loop(setup)
    tokens = 0

    def repeat() -> None:
        nonlocal tokens
        tokens = sum(loop.run(*batch)[0] for batch in setup.batches(rows))

    session.measure(repeat)
    session.facts |= {"tokens": tokens, "rows": rows}


def _bucket(size: int, largest: int) -> int:
    """Shapes are powers of two, so that there are few of them to compile."""
    return min(largest, 1 << max(4, (size - 1).bit_length()))


class _Loop:
    """The loop's compiled pieces."""

    def __init__(self, setup: Setup):
        self._setup = s = setup
        self._student = jax.jit(lambda p: unstack(p, s.student_config))(s.student)
        self._teacher = jax.jit(lambda p: unstack(p, s.teacher_config))(s.teacher)
        self._width = s.shape["prompt"] + s.settings.max_total
        self._last_delimiter = s.delimiter_id + max(
            1, s.student_config.vocab_size // s.shape["step"]
        )
        self._begin = jax.jit(self._beginning)
        self._step = jax.jit(self._stepping, donate_argnums=1)
        self._score = jax.jit(self._scoring)
        self._correct = jax.jit(self._correcting, static_argnums=2)

    def run(
        self, prompts: Any, prompt_lengths: Any, ids: Any
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Tokens written, corrections included; texts [b, T] and their lengths without those."""
        s = self._setup.settings
        origin = np.asarray(prompt_lengths)
        rows = np.arange(len(origin))
        cache = self._begin(self._student, prompts, prompt_lengths)
        text = jnp.pad(prompts, ((0, 0), (0, s.max_total)))
        lengths, active = origin.copy(), np.ones(len(origin), bool)
        values = np.zeros((len(origin), s.max_total), np.float32)
        ends = np.zeros((len(origin), s.max_total), np.int64)
        steps = np.zeros(len(origin), np.int32)
        start, room = np.zeros(len(origin), np.int64), np.zeros(len(origin), np.int64)
        while active.any():
            before = lengths
            cache, text, after = self._step(self._student, cache, text, before, active, origin, ids)
            lengths = np.asarray(after)
            size = _bucket(int(lengths.max()), self._width)
            costs = np.asarray(self._score(self._teacher, text[:, :size], lengths))
            at = np.arange(1, size)
            inside = (at >= before[:, None]) & (at < lengths[:, None])
            last = np.asarray(text)[rows, lengths - 1]
            ended = last < len(self._setup.eos_ids)
            # An end of sequence on its own is no step.
            judged = active & ~(ended & (lengths - before == 1))
            mean = np.sum(np.where(inside, costs, 0.0), axis=1) / np.maximum(inside.sum(axis=1), 1)
            values[rows[judged], steps[judged]] = np.exp(-mean[judged])
            ends[rows[judged], steps[judged]] = (lengths - origin)[judged]
            steps += judged
            boundaries = jnp.full_like(values, s.gamma_0)
            found = find_backtrack(jnp.asarray(values), boundaries, jnp.asarray(steps))
            breach, root = (np.asarray(x) for x in found)
            breached = active & (breach >= 0)
            delimited = (last >= self._setup.delimiter_id) & (last < self._last_delimiter)
            kept = lengths - origin + len(self._setup.revision_ids) + ~delimited - ended
            enough = breached & (s.max_total - kept >= s.min_correction)
            prefix = origin + np.where(root > 0, ends[rows, np.maximum(root - 1, 0)], 0)
            start = np.where(enough, prefix, start)
            room = np.where(enough, np.minimum(s.max_total - kept, s.max_correction), room)
            active = active & ~breached & ~ended & (lengths < origin + s.max_total)
        written = int(np.sum(lengths - origin))
        if (room > 0).any():
            written += self._corrections(text, start, room, origin, np.asarray(ids))
        return written, np.asarray(text), lengths

    def _corrections(self, text: Any, start: Any, room: Any, origin: Any, ids: Any) -> int:
        chosen = np.flatnonzero(room)
        # Padded with copies that write nothing, for few shapes.
        size = 1 << (len(chosen) - 1).bit_length()
        index = np.resize(chosen, size)
        limit = np.where(np.arange(size) < len(chosen), room[index], 0)
        prefix = _bucket(int(start[index].max()), self._width)
        lengths = self._correct(
            self._teacher, text[index], prefix, start[index], limit, origin[index], ids[index]
        )
        return int(np.sum(np.asarray(lengths) - start[index]))

    def _beginning(self, params: Any, prompts: Any, prompt_lengths: Any) -> Any:
        return start(params, self._setup.student_config, prompts, prompt_lengths, self._width + 1)

    def _keys(self, role: Role, ids: Any) -> Any:
        attempt = 0 if role == Role.STUDENT else 1
        return row_keys(role_key(self._setup.key, role, attempt), ids)

    def _stepping(
        self, params: Any, cache: Any, text: Any, lengths: Any, active: Any, origin: Any, ids: Any
    ) -> Any:
        s = self._setup

        def ends_step(token: jax.Array, count: jax.Array) -> jax.Array:
            delimiter = (token >= s.delimiter_id) & (token < self._last_delimiter)
            return delimiter | (count >= s.settings.max_step_tokens)

        token = jnp.take_along_axis(text, lengths[:, None] - 1, axis=1)[:, 0]
        cursor = Cursor(token, lengths, origin + s.settings.max_total, origin, active)
        keys = self._keys(Role.STUDENT, ids)
        cache, cursor, text = write_step(
            params, s.student_config, cache, cursor, text, keys, s.eos_ids, ends_step
        )
        return cache, text, cursor.length_B

    def _scoring(self, params: Any, text: Any, lengths: Any) -> jax.Array:
        config, k = self._setup.teacher_config, self._setup.settings.entropy_top_k
        cache = init_cache(config, text.shape[0], text.shape[1])
        _, costs, entropies = score(params, config, cache, text, lengths, k)
        # A static boundary does not read the entropy, but MOTAB computes it.
        return jax.lax.optimization_barrier((costs, entropies))[0]

    def _correcting(
        self, params: Any, text: Any, width: int, begin: Any, count: Any, origin: Any, ids: Any
    ) -> jax.Array:
        s = self._setup
        chunk = s.settings.chunk
        cache = start(params, s.teacher_config, text[:, :width], begin, width + chunk)
        token = jnp.take_along_axis(text, begin[:, None] - 1, axis=1)[:, 0]
        cursor = Cursor(token, begin, begin + count, origin, count > 0)
        return write(
            params,
            s.teacher_config,
            cache,
            cursor,
            text,
            self._keys(Role.TEACHER, ids),
            s.eos_ids,
            chunk,
            self._width,
        )[1].length_B
