"""What MOTAB's rollout is made of, each part by itself: the least that the work can cost.

The student writes what it wrote there, and nothing beyond a breach; the teacher passes over it
once, all at hand; and it decodes the corrections from the cache of that pass.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill.roles import Role, role_key
from distill.trajectories import Source
from experiments.bench.ours.motab.pieces import score, start, write
from experiments.bench.ours.motab.setup import Setup, make_setup
from experiments.bench.peers.bench_protocol import Session, timed
from models.decoding.decode import Cursor, capacities, init_cache, unstack
from models.decoding.sampling import row_keys


def measure(session: Session) -> None:
    """The parts' times, and their sum as the measurement."""
    setup = make_setup(session)
    rollout = setup.rollout()
    work = [_lengths(setup, batch, rollout) for batch in setup.batches(setup.shape["batch"])]
    student, teacher = _Parts(setup, Role.STUDENT), _Parts(setup, Role.TEACHER)
    seconds: dict[str, list[float]] = {"rollout": [], "teacher": [], "corrections": []}
    tokens = 0

    def repeat() -> None:
        nonlocal tokens
        for times in seconds.values():
            times.append(0.0)
        tokens = 0
        for batch, lengths in zip(setup.batches(setup.shape["batch"]), work, strict=True):
            text = _timed(seconds["rollout"], lambda: student.rollout(batch, lengths["student"]))  # noqa: B023
            ends = batch[1] + lengths["student"]
            cache = _timed(seconds["teacher"], lambda: teacher.score(text, ends))[0]  # noqa: B023
            _timed(seconds["corrections"], lambda: teacher.correct(batch, text, cache, lengths))  # noqa: B023
            tokens += int(np.sum(lengths["student"]) + np.sum(lengths["correction"]))

    first = timed(repeat)
    repeat()
    session.ready(first)
    while session.wait():
        repeat()
        session.report(sum(times[-1] for times in seconds.values()))
    session.facts |= {f"{name}_seconds": times[2:] for name, times in seconds.items()}
    session.facts["tokens"] = tokens


def _timed(seconds: list[float], part: Any) -> Any:
    out: list[Any] = []
    seconds[-1] += timed(lambda: out.append(jax.block_until_ready(part())))
    return out[0]


def _lengths(setup: Setup, batch: Any, rollout: Any) -> dict[str, np.ndarray]:
    """Tokens that student and teacher wrote in MOTAB's rollout, and where the corrections start."""
    trajectories, record = jax.device_get(rollout(*batch))
    source, breach, root = trajectories.source_BxT, record.breach_B, record.root_B
    last = np.where(breach >= 0, breach, np.maximum(record.num_steps_B - 1, 0))
    rows = np.arange(len(breach))
    before = np.where(root > 0, record.step_ends_BxL[rows, np.maximum(root - 1, 0)], 0)
    by_student = np.sum((source == Source.STUDENT) | (source == Source.FLAWED), axis=1)
    # An end of sequence at a breach was written, and taken out.
    written = np.where(breach >= 0, record.step_ends_BxL[rows, last], by_student)
    return {
        "student": written.astype(np.int32),
        "start": before.astype(np.int32),
        "correction": np.sum(source == Source.TEACHER, axis=1).astype(np.int32),
    }


class _Parts:
    """The compiled parts of one model."""

    def __init__(self, setup: Setup, role: Role):
        s, self._student = setup, role == Role.STUDENT
        self._setup, self._role = setup, role
        self._config = s.student_config if self._student else s.teacher_config
        params = s.student if self._student else s.teacher
        self._params = jax.jit(lambda p: unstack(p, self._config))(params)
        self._width = s.shape["prompt"] + s.settings.max_total
        self._score = jax.jit(self._scoring)
        self._write = jax.jit(self._writing)
        self._continue = jax.jit(self._continuing)

    def _keys(self, ids: jax.Array) -> jax.Array:
        attempt = 0 if self._student else 1
        return row_keys(role_key(self._setup.key, self._role, attempt), ids)

    def rollout(self, batch: Any, lengths: np.ndarray) -> jax.Array:
        """Prompts and texts of these lengths [b, T]."""
        return self._write(self._params, *batch, jnp.asarray(lengths))

    def score(self, text: jax.Array, ends: jax.Array) -> Any:
        """Cache, costs and entropies of rows, cut behind the longest."""
        width = min(self._width, 32 * -(-int(jnp.max(ends)) // 32))
        return self._score(self._params, text[:, :width], ends)

    def correct(self, batch: Any, text: jax.Array, cache: Any, lengths: dict[str, Any]) -> Any:
        """Corrections of these lengths, behind what the cache holds up to their starts."""
        prompt_lengths, ids = batch[1:]
        begin, count = jnp.asarray(lengths["start"]), jnp.asarray(lengths["correction"])
        return self._continue(self._params, cache, text, prompt_lengths, ids, begin, count)

    def _scoring(self, params: Any, text: jax.Array, ends: jax.Array) -> Any:
        cache = init_cache(self._config, text.shape[0], text.shape[1])
        return score(params, self._config, cache, text, ends, self._setup.settings.entropy_top_k)

    def _writing(
        self,
        params: Any,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        ids: jax.Array,
        lengths: Any,
    ) -> jax.Array:
        s = self._setup
        size = capacities(prompts.shape[1] + s.settings.chunk, self._width)[0]
        cache = start(params, self._config, prompts, prompt_lengths, size)
        text = jnp.pad(prompts, ((0, 0), (0, s.settings.max_total)))
        cursor = self._cursor(text, prompt_lengths, prompt_lengths, lengths)
        return self._finish(params, cache, cursor, text, ids)

    def _continuing(
        self,
        params: Any,
        cache: Any,
        text: Any,
        prompt_lengths: Any,
        ids: Any,
        begin: Any,
        count: Any,
    ) -> jax.Array:
        cursor = self._cursor(text, prompt_lengths, prompt_lengths + begin, count)
        return self._finish(params, cache, cursor, text, ids)

    def _cursor(self, text: Any, origin: Any, at: Any, count: Any) -> Cursor:
        token = jnp.take_along_axis(text, at[:, None] - 1, axis=1)[:, 0]
        return Cursor(token, at, at + count, origin, count > 0)

    def _finish(self, params: Any, cache: Any, cursor: Cursor, text: Any, ids: Any) -> jax.Array:
        s = self._setup
        decode_all = functools.partial(write, params, self._config)
        return decode_all(
            cache, cursor, text, self._keys(ids), s.eos_ids, s.settings.chunk, self._width
        )[2]
