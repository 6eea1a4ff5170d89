"""The backtracking rollout (MOTAB, Algorithm 1), one chunk at a time.

Until a breach the teacher has no influence on the student, so it need not be asked step by step:
the student writes a chunk, one teacher pass over the chunk gives every value and boundary in it
and extends the teacher's own cache, and a breached row goes back to its last safe state by moving
the teacher's length there. The teacher then continues that row while others go on. The result does
not depend on the chunk length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.scores import TokenScores, score_tokens
from distill.roles import Role
from distill.rollouts.two_models import ParamsPair, Writers, make_writers, rollout_of
from distill.steps.table import StepTable
from distill.trajectories import Trajectories
from models.decoding.decode import Cursor, put
from models.decoding.slots import Slots
from motab.credit import find_backtrack
from motab.monitor import Monitored, monitor
from motab.rollout_state import Record, RolloutState, begin, progress
from motab.settings import MotabSettings
from motab.stitching import Pieces, pick, stitch

Rollout = Callable[..., tuple[Trajectories, Record]]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is fixed before a rollout; see `make_slots`."""

    writers: Writers
    settings: MotabSettings
    table: StepTable
    delimiter_ids: tuple[int, ...]
    revision_ids: tuple[int, ...]


class Verdict(flax.struct.PyTreeNode):
    """Of every row after a chunk.

    Attributes:
      num_steps_B: complete steps.
      breached_B: one of them fell below its boundary, in this chunk.
      breach_B, root_B: that step, and the one to go back to (Eq. 8); -1 where nothing breached.
    """

    num_steps_B: jax.Array
    breached_B: jax.Array
    breach_B: jax.Array
    root_B: jax.Array


class Handover(flax.struct.PyTreeNode):
    """Where the student's text stops, and the correction starts.

    Attributes:
      kept_B: the student's response tokens, up to and including a breaching step.
      start_B: context length of the last safe state; `token_B` is its last token.
      room_B: tokens that a correction may have.
      corrected_B: breached rows that the teacher takes over.
      dropped_B: breached rows whose correction has too little room.
    """

    kept_B: jax.Array
    start_B: jax.Array
    token_B: jax.Array
    room_B: jax.Array
    corrected_B: jax.Array
    dropped_B: jax.Array


def record_steps(
    record: Record, seen: Monitored, scores: TokenScores, old: Cursor, count_B: jax.Array
) -> Record:
    """Adds what the monitor saw of the `count_B` tokens behind `old`, and the steps they end."""
    response_B = old.length_B - old.origin_B
    lengths_BxC = old.length_B[:, None] + jnp.arange(1, seen.ends.shape[1] + 1)
    rows = jnp.arange(seen.ends.shape[0])[:, None]
    columns_BxC = jnp.where(seen.ends, seen.step, record.values_BxL.shape[1])

    def by_step(buffer_BxL: jax.Array, x_BxC: jax.Array) -> jax.Array:
        return buffer_BxL.at[rows, columns_BxC].set(x_BxC, mode="drop")

    def by_token(buffer_BxN: jax.Array, x_BxC: jax.Array) -> jax.Array:
        return put(buffer_BxN, x_BxC, response_B, count_B)

    return record.replace(
        values_BxL=by_step(record.values_BxL, seen.value),
        boundaries_BxL=by_step(record.boundaries_BxL, seen.boundary),
        step_ends_BxL=by_step(record.step_ends_BxL, lengths_BxC - old.origin_B[:, None]),
        delimited_BxL=by_step(record.delimited_BxL, seen.delimited),
        steps_BxN=by_token(record.steps_BxN, seen.step),
        scores=jax.tree.map(by_token, record.scores, scores),
    )


def judge(
    record: Record, num_steps_B: jax.Array, active_B: jax.Array, settings: MotabSettings
) -> Verdict:
    """Which rows that were being written have breached, and where they go back to."""
    breach_B, root_B = find_backtrack(record.values_BxL, record.boundaries_BxL, num_steps_B)
    return Verdict(
        num_steps_B=num_steps_B,
        breached_B=active_B & (breach_B >= 0),
        breach_B=breach_B,
        root_B=breach_B if settings.correction == "rewrite" else root_B,
    )


def hand_over(
    plan: Plan, verdict: Verdict, record: Record, text_BxT: jax.Array, old: Cursor, new: Cursor
) -> Handover:
    """What stays of the student's chunk from `old` to `new`, and who goes on."""
    v, s, origin_B = verdict, plan.settings, old.origin_B
    kept_B = jnp.where(
        v.breached_B, pick(record.step_ends_BxL, v.breach_B), new.length_B - origin_B
    )
    safe_B = jnp.where(v.root_B > 0, pick(record.step_ends_BxL, v.root_B - 1), 0)
    start_B = origin_B + safe_B
    before_B = start_B - origin_B
    if s.stitch:
        delimiter_B = jnp.where(pick(record.delimited_BxL, v.breach_B), 0, len(plan.delimiter_ids))
        # Stitching takes an end of sequence out.
        taken_out_B = plan.writers.is_eos(pick(text_BxT, origin_B + kept_B - 1))
        before_B = kept_B + (delimiter_B + len(plan.revision_ids) - taken_out_B)
    room_B = jnp.minimum(old.limit_B - origin_B - before_B, s.max_correction)
    enough_B = room_B >= s.min_correction
    return Handover(
        kept_B=kept_B,
        start_B=start_B,
        token_B=pick(text_BxT, start_B - 1),
        room_B=room_B,
        corrected_B=v.breached_B & enough_B,
        dropped_B=v.breached_B & ~enough_B,
    )


def record_verdict(
    record: Record, verdict: Verdict, dropped_B: jax.Array, old: Cursor, truncated_B: jax.Array
) -> Record:
    """Adds how rows ended, or that they breached."""
    v = verdict
    judged_B = jnp.where(v.breached_B, v.breach_B + 1, v.num_steps_B)
    return record.replace(
        num_steps_B=jnp.where(old.active_B, judged_B, record.num_steps_B),
        breach_B=jnp.where(v.breached_B, v.breach_B, record.breach_B),
        root_B=jnp.where(v.breached_B, v.root_B, record.root_B),
        dropped_B=record.dropped_B | dropped_B,
        truncated_B=record.truncated_B | truncated_B,
    )


def write_and_monitor(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """The student writes a chunk, the teacher judges it, breached rows change hands."""
    w, old = plan.writers, state.student
    cache, new, written = w.write(Role.STUDENT, params, state.caches, old, state.student_keys_B)
    tokens, count_B = written.tokens_BxC, written.count_B
    text = put(state.text_BxT, tokens, old.length_B, count_B)
    hidden, teacher_cache = w.follow(Role.TEACHER, params, state.caches, old, written)
    scores = score_tokens(
        params[0],
        w.configs[0],
        written.hidden_BxCxD,
        params[1],
        w.configs[1],
        hidden,
        tokens,
        plan.settings.entropy_top_k,
    )
    eos = w.is_eos(tokens)
    lengths = old.length_B[:, None] + jnp.arange(1, w.chunk_tokens + 1)
    final = eos | (lengths >= old.limit_B[:, None])
    monitor_state, seen = monitor(
        state.monitor, tokens, count_B, final, eos, scores, plan.table, plan.settings
    )
    record = record_steps(state.record, seen, scores, old, count_B)
    verdict = judge(record, monitor_state.steps.step_B, old.active_B, plan.settings)
    handover = hand_over(plan, verdict, record, text, old, new)
    goes_on = new.active_B & ~verdict.breached_B
    truncated = old.active_B & ~new.active_B & ~verdict.breached_B & ~w.is_eos(new.token_B)
    to_teacher = handover.corrected_B
    return state.replace(
        caches=(cache, teacher_cache),
        student=new.replace(length_B=old.origin_B + handover.kept_B, active_B=goes_on),
        teacher=Cursor(
            token_B=jnp.where(to_teacher, handover.token_B, state.teacher.token_B),
            length_B=jnp.where(to_teacher, handover.start_B, state.teacher.length_B),
            limit_B=jnp.where(
                to_teacher, handover.start_B + handover.room_B, state.teacher.limit_B
            ),
            origin_B=old.origin_B,
            active_B=state.teacher.active_B | to_teacher,
        ),
        monitor=monitor_state,
        record=record_verdict(record, verdict, handover.dropped_B, old, truncated),
        text_BxT=text,
        start_B=jnp.where(to_teacher, handover.start_B, state.start_B),
    )


def correct(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """The teacher continues breached rows from their last safe state (Eq. 9)."""
    w, old = plan.writers, state.teacher
    cache, new, written = w.write(Role.TEACHER, params, state.caches, old, state.teacher_keys_B)
    suffix = put(
        state.suffix_BxN, written.tokens_BxC, old.length_B - state.start_B, written.count_B
    )
    truncated = old.active_B & ~new.active_B & ~w.is_eos(new.token_B)
    return state.replace(
        caches=(state.caches[0], cache),
        teacher=new,
        suffix_BxN=suffix,
        record=state.record.replace(truncated_B=state.record.truncated_B | truncated),
    )


def rollout_chunk(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """A chunk of every student's text, and then one of every correction."""
    for cursor, step in (("student", write_and_monitor), ("teacher", correct)):
        state = jax.lax.cond(
            jnp.any(getattr(state, cursor).active_B),
            functools.partial(step, plan, params),
            lambda state: state,
            state,
        )
    return state


def finish(plan: Plan, state: RolloutState) -> tuple[Trajectories, Record]:
    """The stitched trajectories, and what the monitor saw."""
    student = state.student
    pieces = Pieces(
        text_BxT=state.text_BxT,
        prompt_lengths_B=student.origin_B,
        student_lengths_B=student.length_B - student.origin_B,
        suffix_BxN=state.suffix_BxN,
        suffix_lengths_B=state.teacher.length_B - state.start_B,
    )
    trajectories = stitch(
        pieces,
        state.record,
        plan.settings,
        plan.delimiter_ids,
        plan.revision_ids,
        plan.writers.eos_ids,
    )
    return trajectories, state.record


def make_slots(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    settings: MotabSettings,
    table: StepTable,
    delimiter_ids: Sequence[int],
    revision_ids: Sequence[int],
    eos_ids: Sequence[int],
    vocab_size: int | None = None,
) -> Slots:
    """The rollout that writes, monitors, corrects and stitches trajectories, in parts.

    Its parameters are the pair (student's, teacher's), and it ends in (Trajectories, Record).

    Args:
      table: the delimiter's automaton over the shared token ids.
      delimiter_ids, revision_ids: `settings.delimiter` and `settings.revision_text` as tokens.
      eos_ids: tokens that end a text.
      vocab_size: only ids below it are sampled: those that both models and the tokenizer know. By
        default the narrower model's width.

    Raises:
      ValueError: no end-of-sequence token.
    """
    writers = make_writers((student_config, teacher_config), settings, eos_ids, vocab_size)
    plan = Plan(writers, settings, table, tuple(delimiter_ids), tuple(revision_ids))
    return writers.slots(
        begin=lambda caches, rows: begin(caches, rows, settings.max_total, table),
        chunk=functools.partial(rollout_chunk, plan),
        progress=progress,
        finish=functools.partial(finish, plan),
    )


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
      table, delimiter_ids, revision_ids, eos_ids, vocab_size: as in `make_slots`.

    Returns:
      `rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B],
      sample_ids [B], key) -> (Trajectories [B, P + max_total], Record)`, to be jitted by the
      caller. The same key, sample id and parameters give the same trajectory in any batch.

    Raises:
      ValueError: no end-of-sequence token.
    """
    return rollout_of(
        make_slots(
            student_config,
            teacher_config,
            settings,
            table,
            delimiter_ids,
            revision_ids,
            eos_ids,
            vocab_size,
        )
    )
