"""The backtracking rollout (MOTAB, Algorithm 1), one chunk at a time.

Until a breach the teacher has no influence on the student, so it need not be asked step by step:
the student writes a chunk, one teacher pass over the chunk gives every value and boundary in it
and extends the teacher's own cache, and a breached row goes back to its last safe state by moving
the teacher's length there. The teacher then continues that row while others go on. The result does
not depend on the chunk length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.roles import Role, role_key
from distill.scores import TokenScores, score_tokens
from distill.steps import StepTable
from distill.trajectories import Trajectories
from models.decode import (
    Cache,
    Cursor,
    capacities,
    decode,
    extend,
    grow_cache,
    init_cache,
    prefill,
    put,
    unstack,
)
from models.parameters import Params
from models.sampling import Sampling, row_keys
from motab.credit import find_backtrack
from motab.monitor import MonitorState, init_monitor, monitor
from motab.settings import MotabSettings
from motab.stitching import Pieces, pick, stitch


class Record(flax.struct.PyTreeNode):
    """What the monitor saw, per step [B, L] and per student token [B, N].

    Attributes:
      values_BxL, boundaries_BxL: V and gamma.
      step_ends_BxL: response position after each step's last token.
      delimited_BxL: the step ended with the delimiter.
      num_steps_B: steps judged, up to and including a breaching one.
      breach_B, root_B: 0-based steps, -1 where nothing breached.
      dropped_B: a breach left no room for a correction; the row trains nothing.
      truncated_B: the response ran out of budget before an end of sequence.
      steps_BxN: step index of each student token.
      scores: the teacher's scores of each student token.
    """

    values_BxL: jax.Array
    boundaries_BxL: jax.Array
    step_ends_BxL: jax.Array
    delimited_BxL: jax.Array
    num_steps_B: jax.Array
    breach_B: jax.Array
    root_B: jax.Array
    dropped_B: jax.Array
    truncated_B: jax.Array
    steps_BxN: jax.Array
    scores: TokenScores


class RolloutState(flax.struct.PyTreeNode):
    """Everything between two chunks.

    Attributes:
      student_cache, teacher_cache: both keep token t of the student's text in slot t; the
        teacher's is rewound at a breach.
      student, teacher: cursors; the teacher's is active in rows under correction.
      monitor: the open step of every row.
      record: the steps so far.
      text_BxT: prompt and student tokens, by position.
      suffix_BxN: corrections.
      start_B: context length at which a row's correction starts.
    """

    student_cache: Cache
    teacher_cache: Cache
    student: Cursor
    teacher: Cursor
    monitor: MonitorState
    record: Record
    text_BxT: jax.Array
    suffix_BxN: jax.Array
    start_B: jax.Array


Rollout = Callable[..., tuple[Trajectories, Record]]


def make_rollout(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    settings: MotabSettings,
    table: StepTable,
    delimiter_ids: Sequence[int],
    revision_ids: Sequence[int],
    eos_ids: Sequence[int],
    vocab_size: int | None = None,
) -> Rollout:
    """Builds the pure function that writes, monitors, corrects and stitches trajectories.

    Args:
      table: the delimiter's automaton over the shared token ids.
      delimiter_ids, revision_ids: `settings.delimiter` and `settings.revision_text` as tokens.
      eos_ids: tokens that end a text.
      vocab_size: only ids below it are sampled: those that both models and the tokenizer know. By
        default the narrower model's width.

    Returns:
      `rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B],
      sample_ids [B], key) -> (Trajectories [B, P + max_total], Record)`, to be jitted by the
      caller. The same key, sample id and parameters give the same trajectory in any batch.

    Raises:
      ValueError: no end-of-sequence token.
    """
    if not eos_ids:
        raise ValueError("eos_ids is empty: no text could end before its budget.")
    s = settings
    eos_ids = tuple(eos_ids)
    vocab = min(student_config.vocab_size, teacher_config.vocab_size, vocab_size or 2**31)
    student_sampling = Sampling(s.student_temperature, vocab_size=vocab)
    teacher_sampling = Sampling(s.teacher_temperature, vocab_size=vocab)
    chunk_tokens = min(s.chunk, s.max_total)

    def is_eos(tokens: jax.Array) -> jax.Array:
        return jnp.isin(tokens, jnp.asarray(eos_ids))

    def write_and_monitor(
        student_params: Params, teacher_params: Params, state: RolloutState, keys_B: jax.Array
    ) -> RolloutState:
        """The student writes a chunk, the teacher judges it, breached rows change hands."""
        old = state.student
        cache, new, written = decode(
            student_params, student_config, state.student_cache, old, keys_B, chunk_tokens,
            student_sampling, eos_ids,
        )  # fmt: skip
        text = put(state.text_BxT, written.tokens_BxC, old.length_B, written.count_B)

        inputs = jnp.concatenate([old.token_B[:, None], written.tokens_BxC[:, :-1]], axis=1)
        valid = jnp.arange(chunk_tokens) < written.count_B[:, None]
        hidden, teacher_cache = extend(
            teacher_params, teacher_config, inputs, old.length_B - 1, state.teacher_cache, valid
        )
        scores = score_tokens(
            student_params, student_config, written.hidden_BxCxD,
            teacher_params, teacher_config, hidden, written.tokens_BxC, s.entropy_top_k,
        )  # fmt: skip
        eos = is_eos(written.tokens_BxC)
        lengths = old.length_B[:, None] + jnp.arange(1, chunk_tokens + 1)
        final = eos | (lengths >= old.limit_B[:, None])
        monitor_state, seen = monitor(
            state.monitor, written.tokens_BxC, written.count_B, final, eos, scores, table, s
        )

        record, response = state.record, old.length_B - old.origin_B
        rows = jnp.arange(text.shape[0])[:, None]
        slots = jnp.where(seen.ends, seen.step, record.values_BxL.shape[1])

        def by_step(buffer: jax.Array, x: jax.Array) -> jax.Array:
            return buffer.at[rows, slots].set(x, mode="drop")

        values = by_step(record.values_BxL, seen.value)
        boundaries = by_step(record.boundaries_BxL, seen.boundary)
        step_ends = by_step(record.step_ends_BxL, lengths - old.origin_B[:, None])
        num_steps = monitor_state.steps.step_B
        breach, root = find_backtrack(values, boundaries, num_steps)
        breached = old.active_B & (breach >= 0)
        if s.correction == "rewrite":
            root = breach

        delimited = by_step(record.delimited_BxL, seen.delimited)
        kept = jnp.where(breached, pick(step_ends, breach), new.length_B - old.origin_B)
        start = old.origin_B + jnp.where(root > 0, pick(step_ends, root - 1), 0)
        last = pick(text, old.origin_B + kept - 1)
        inserted = jnp.where(pick(delimited, breach), 0, len(delimiter_ids)) + len(revision_ids)
        inserted = inserted - is_eos(last)  # taken out in stitching
        room = _room(s, kept + inserted, start - old.origin_B)
        enough = room >= s.min_correction
        handed_over = breached & enough
        token = pick(text, start - 1)
        teacher = Cursor(
            token_B=jnp.where(handed_over, token, state.teacher.token_B),
            length_B=jnp.where(handed_over, start, state.teacher.length_B),
            limit_B=jnp.where(handed_over, start + room, state.teacher.limit_B),
            origin_B=old.origin_B,
            active_B=state.teacher.active_B | handed_over,
        )
        ended = old.active_B & ~new.active_B & ~breached
        record = Record(
            values_BxL=values,
            boundaries_BxL=boundaries,
            step_ends_BxL=step_ends,
            delimited_BxL=delimited,
            num_steps_B=jnp.where(
                old.active_B, jnp.where(breached, breach + 1, num_steps), record.num_steps_B
            ),
            breach_B=jnp.where(breached, breach, record.breach_B),
            root_B=jnp.where(breached, root, record.root_B),
            dropped_B=record.dropped_B | (breached & ~enough),
            truncated_B=record.truncated_B | (ended & ~is_eos(new.token_B)),
            steps_BxN=put(record.steps_BxN, seen.step, response, written.count_B),
            scores=jax.tree.map(
                lambda buffer, x: put(buffer, x, response, written.count_B), record.scores, scores
            ),
        )
        return RolloutState(
            student_cache=cache,
            teacher_cache=teacher_cache,
            student=new.replace(
                length_B=old.origin_B + kept, active_B=new.active_B & ~breached
            ),
            teacher=teacher,
            monitor=monitor_state,
            record=record,
            text_BxT=text,
            suffix_BxN=state.suffix_BxN,
            start_B=jnp.where(handed_over, start, state.start_B),
        )  # fmt: skip

    def correct(teacher_params: Params, state: RolloutState, keys_B: jax.Array) -> RolloutState:
        """The teacher continues breached rows from their last safe state (Eq. 9)."""
        old = state.teacher
        cache, new, written = decode(
            teacher_params, teacher_config, state.teacher_cache, old, keys_B, chunk_tokens,
            teacher_sampling, eos_ids,
        )  # fmt: skip
        suffix = put(
            state.suffix_BxN, written.tokens_BxC, old.length_B - state.start_B, written.count_B
        )
        ended = old.active_B & ~new.active_B
        truncated = state.record.truncated_B | (ended & ~is_eos(new.token_B))
        return state.replace(
            teacher_cache=cache,
            teacher=new,
            suffix_BxN=suffix,
            record=state.record.replace(truncated_B=truncated),
        )

    def rollout_chunk(
        student_params: Params,
        teacher_params: Params,
        state: RolloutState,
        student_keys_B: jax.Array,
        teacher_keys_B: jax.Array,
    ) -> RolloutState:
        state = jax.lax.cond(
            jnp.any(state.student.active_B),
            lambda state: write_and_monitor(student_params, teacher_params, state, student_keys_B),
            lambda state: state,
            state,
        )
        return jax.lax.cond(
            jnp.any(state.teacher.active_B),
            lambda state: correct(teacher_params, state, teacher_keys_B),
            lambda state: state,
            state,
        )

    def rollout(
        student_params: Params,
        teacher_params: Params,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        sample_ids: jax.Array,
        key: jax.Array,
    ) -> tuple[Trajectories, Record]:
        student = unstack(student_params, student_config)
        teacher = unstack(teacher_params, teacher_config)
        student_keys = row_keys(role_key(key, Role.STUDENT, 0), sample_ids)
        teacher_keys = row_keys(role_key(key, Role.TEACHER, 1), sample_ids)
        width = prompts.shape[1]
        # In one round a student's chunk may end in a breach and the correction's chunk follow it.
        reach = 2 * chunk_tokens
        sizes = capacities(width + reach, width + s.max_total + reach)
        state = _start(
            student, student_config, teacher, teacher_config, s, table, prompts, prompt_lengths,
            sizes[0],
        )  # fmt: skip
        for size in sizes:
            state = state.replace(
                student_cache=grow_cache(state.student_cache, size),
                teacher_cache=grow_cache(state.teacher_cache, size),
            )

            def more(state: RolloutState, size: int = size) -> jax.Array:
                lengths = jnp.maximum(
                    jnp.where(state.student.active_B, state.student.length_B, 0),
                    jnp.where(state.teacher.active_B, state.teacher.length_B, 0),
                )
                return jnp.any(lengths > 0) & (jnp.max(lengths) + reach <= size)

            state = jax.lax.while_loop(
                more,
                lambda state: rollout_chunk(student, teacher, state, student_keys, teacher_keys),
                state,
            )
        pieces = Pieces(
            text_BxT=state.text_BxT,
            prompt_lengths_B=prompt_lengths,
            student_lengths_B=state.student.length_B - prompt_lengths,
            suffix_BxN=state.suffix_BxN,
            suffix_lengths_B=state.teacher.length_B - state.start_B,
        )
        trajectories = stitch(
            pieces, state.record, s, tuple(delimiter_ids), tuple(revision_ids), eos_ids
        )
        return trajectories, state.record

    return rollout


def _room(settings: MotabSettings, kept_B: jax.Array, start_B: jax.Array) -> jax.Array:
    """Tokens that a correction may have, so that the whole response fits `max_total`.

    Before it lie `kept_B` tokens where it is stitched to the student's text and the revision text,
    and `start_B` where it follows the last safe state.
    """
    before = kept_B if settings.stitch else start_B
    return jnp.minimum(settings.max_total - before, settings.max_correction)


def _start(
    student_params: Params,
    student_config: models.ModelConfig,
    teacher_params: Params,
    teacher_config: models.ModelConfig,
    settings: MotabSettings,
    table: StepTable,
    prompts_BxP: jax.Array,
    prompt_lengths_B: jax.Array,
    capacity: int,
) -> RolloutState:
    """The state before the first chunk: both prompts prefilled but for their last token."""
    batch, total = prompts_BxP.shape[0], settings.max_total
    integers = jnp.zeros(batch, jnp.int32)
    per_token = jnp.zeros((batch, total), jnp.float32)
    cursor = Cursor(
        token_B=jnp.take_along_axis(prompts_BxP, prompt_lengths_B[:, None] - 1, axis=1)[:, 0],
        length_B=prompt_lengths_B,
        limit_B=prompt_lengths_B + total,
        origin_B=prompt_lengths_B,
        active_B=jnp.ones(batch, bool),
    )
    caches = [
        prefill(params, config, prompts_BxP, prompt_lengths_B, init_cache(config, batch, capacity))
        for params, config in ((student_params, student_config), (teacher_params, teacher_config))
    ]
    record = Record(
        values_BxL=per_token,
        boundaries_BxL=per_token,
        step_ends_BxL=jnp.zeros((batch, total), jnp.int32),
        delimited_BxL=jnp.zeros((batch, total), bool),
        num_steps_B=integers,
        breach_B=integers - 1,
        root_B=integers - 1,
        dropped_B=jnp.zeros(batch, bool),
        truncated_B=jnp.zeros(batch, bool),
        steps_BxN=jnp.zeros((batch, total), jnp.int32),
        scores=TokenScores(*[per_token] * 5),
    )
    return RolloutState(
        student_cache=caches[0],
        teacher_cache=caches[1],
        student=cursor,
        teacher=cursor.replace(active_B=jnp.zeros(batch, bool)),
        monitor=init_monitor(batch, table),
        record=record,
        text_BxT=jnp.pad(prompts_BxP, ((0, 0), (0, total))),
        suffix_BxN=jnp.zeros((batch, total), jnp.int32),
        start_B=prompt_lengths_B,
    )
