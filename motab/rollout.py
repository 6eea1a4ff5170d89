"""The backtracking rollout (MOTAB, Algorithm 1), one chunk at a time.

Until a breach the teacher has no influence on the student, so it need not be asked step by step:
the student writes a chunk, one teacher pass over the chunk gives every value and boundary in it
and extends the teacher's own cache, and a breached row goes back to its last safe state by moving
the teacher's length there. The teacher then continues that row while others go on. The result does
not depend on the chunk length.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.arguments import arguments_of, common_ids
from distill.losses.chunked import readout
from distill.losses.scores import TokenScores, score_tokens
from distill.roles import Role
from distill.rollouts.two_models import ParamsPair, rollout_of, where_any
from distill.steps.table import StepTable
from distill.steps.values import Steps, select
from distill.trajectories import Trajectories
from models.decoding.decode import Cursor, check_ends, pick, put
from models.decoding.slots import Slots
from motab.credit import find_backtrack
from motab.monitor import monitor
from motab.rollout_state import Plan, Record, RolloutState, begin, progress
from motab.settings import MotabSettings
from motab.stitching import borders, safe_length, stitch

Rollout = Callable[..., tuple[Trajectories, Record]]


def record_steps(
    record: Record,
    seen: Steps,
    boundaries_BxC: jax.Array,
    scores: TokenScores,
    old: Cursor,
    count_B: jax.Array,
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
        boundaries_BxL=by_step(record.boundaries_BxL, boundaries_BxC),
        step_ends_BxL=by_step(record.step_ends_BxL, lengths_BxC - old.origin_B[:, None]),
        delimited_BxL=by_step(record.delimited_BxL, seen.delimited),
        steps_BxN=by_token(record.steps_BxN, seen.step),
        scores=jax.tree.map(by_token, record.scores, scores),
    )


def judge(
    record: Record, num_steps_B: jax.Array, active_B: jax.Array, settings: MotabSettings
) -> Record:
    """Adds which rows that were being written have breached, and where they go back to (Eq. 8)."""
    breach_B, root_B = find_backtrack(record.values_BxL, record.boundaries_BxL, num_steps_B)
    judged = record.replace(
        num_steps_B=jnp.where(breach_B >= 0, breach_B + 1, num_steps_B),
        breach_B=breach_B,
        root_B=breach_B if settings.correction == "rewrite" else root_B,
    )
    return select(active_B, judged, record)


def hand_over(
    plan: Plan, record: Record, text_BxT: jax.Array, breached_B: jax.Array, new: Cursor
) -> tuple[Cursor, Cursor]:
    """Where the student stops, at `new` or with a breaching step, and where the teacher starts.

    Returns:
      The student's cursor; and the teacher's at the last safe state, which is active in breached
      rows whose correction has room enough.
    """
    first_B, settings = new.origin_B, plan.settings
    breach_end_B = first_B + pick(record.step_ends_BxL, record.breach_B)
    end_B = jnp.where(breached_B, breach_end_B, new.length_B)
    start_B = first_B + safe_length(record)
    correction_B = borders(plan, record, text_BxT, first_B, end_B)[2]
    room_B = jnp.minimum(new.limit_B - correction_B, settings.max_correction)
    student = new.replace(length_B=end_B, active_B=new.active_B & ~breached_B)
    return student, Cursor(
        token_B=pick(text_BxT, start_B - 1),
        length_B=start_B,
        limit_B=start_B + room_B,
        origin_B=first_B,
        active_B=breached_B & (room_B >= settings.min_correction),
    )


def write_and_monitor(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """The student writes a chunk, the teacher judges it, breached rows change hands."""
    old = state.student
    cache, new, written = plan.write(Role.STUDENT, params, state.caches, old, state.student_keys_B)
    tokens, count_B = written.tokens_BxC, written.count_B
    text = put(state.text_BxT, tokens, old.length_B, count_B)
    hidden, teacher_cache = plan.follow(Role.TEACHER, params, state.caches, old, written)
    both = zip(params, plan.configs, (written.hidden_BxCxD, hidden), strict=True)
    student, teacher = (readout(*model) for model in both)
    scores = score_tokens(student, teacher, tokens, plan.settings.entropy_top_k)
    eos = plan.is_eos(tokens)
    lengths = old.length_B[:, None] + jnp.arange(1, plan.chunk_tokens + 1)
    final = eos | (lengths >= old.limit_B[:, None])
    monitored, seen, boundaries = monitor(
        state.monitor, tokens, count_B, final, eos, scores, plan.table, plan.settings
    )
    record = record_steps(state.record, seen, boundaries, scores, old, count_B)
    record = judge(record, monitored.steps.step_B, old.active_B, plan.settings)
    breached = old.active_B & (record.breach_B >= 0)
    student_cursor, taken_over = hand_over(plan, record, text, breached, new)
    corrected = taken_over.active_B
    truncated = old.active_B & ~new.active_B & ~breached & ~plan.is_eos(new.token_B)
    return state.replace(
        caches=(cache, teacher_cache),
        student=student_cursor,
        teacher=select(corrected, taken_over, state.teacher),
        monitor=monitored,
        record=record.replace(
            dropped_B=record.dropped_B | (breached & ~corrected),
            truncated_B=record.truncated_B | truncated,
        ),
        text_BxT=text,
        start_B=jnp.where(corrected, taken_over.length_B, state.start_B),
    )


def correct(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """The teacher continues breached rows from their last safe state (Eq. 9)."""
    old, record = state.teacher, state.record
    cache, new, written = plan.write(Role.TEACHER, params, state.caches, old, state.teacher_keys_B)
    at_B, count_B = old.length_B - state.start_B, written.count_B
    truncated = old.active_B & ~new.active_B & ~plan.is_eos(new.token_B)
    return state.replace(
        caches=(state.caches[0], cache),
        teacher=new,
        suffix_BxN=put(state.suffix_BxN, written.tokens_BxC, at_B, count_B),
        record=record.replace(truncated_B=record.truncated_B | truncated),
    )


def rollout_chunk(plan: Plan, params: ParamsPair, state: RolloutState) -> RolloutState:
    """A chunk of every student's text, and then one of every correction."""
    for cursor, step in (("student", write_and_monitor), ("teacher", correct)):
        active_B = getattr(state, cursor).active_B
        state = where_any(active_B, functools.partial(step, plan, params), state)
    return state


def finish(plan: Plan, state: RolloutState) -> tuple[Trajectories, Record]:
    """The stitched trajectories, and what the monitor saw."""
    return stitch(plan, state), state.record


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
    configs = student_config, teacher_config
    vocab = common_ids(vocab_size, *(config.vocab_size for config in configs))
    texts = tuple(delimiter_ids), tuple(revision_ids)
    plan = Plan(configs, vocab, check_ends(eos_ids), settings, table, *texts)
    return plan.slots(begin, rollout_chunk, progress, finish)


@arguments_of(make_slots)
def make_rollout(*args: Any, **kwargs: Any) -> Rollout:
    """Builds the pure function that writes, monitors, corrects and stitches trajectories.

    Args:
      args, kwargs: the arguments of `make_slots`.

    Returns:
      `rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B],
      sample_ids [B], key) -> (Trajectories [B, P + max_total], Record)`, to be jitted by the
      caller. The same key, sample id and parameters give the same trajectory in any batch.

    Raises:
      ValueError: no end-of-sequence token.
    """
    return rollout_of(make_slots(*args, **kwargs))
