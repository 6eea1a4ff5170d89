"""Texts that student and teacher write in turns, step by step (ImitKD, SKD).

In a turn one model writes a chunk, and the other runs over it in one pass, so that both caches hold
the text so far. The chunk is cut where the text changes hands: after a step when the other begins
the next, or before a step that does not stand. What lies behind the cut is dropped by moving the
row's length there. The result does not depend on the chunk length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.arguments import arguments_of, common_ids
from distill.losses.log_probs import token_log_probs
from distill.roles import Role, row_role_keys
from distill.rollouts.assembly import Train, assemble
from distill.rollouts.one_writer import SOURCES
from distill.rollouts.two_models import CachePair, ParamsPair, Writers, rollout_of, where_any
from distill.steps.table import StepTable
from distill.steps.values import Steps, StepState, init_steps, read_tokens, restart
from distill.trajectories import Trajectories
from mixtures.policies import SKD, Policy, check_policy
from models.checks import Count, Temperature, check
from models.decoding.decode import Cursor, check_ends, pick, put
from models.decoding.slots import Progress, Rows, Slots


@dataclasses.dataclass(frozen=True)
class StepRolloutSettings:
    """Budgets and temperatures of a step-level mixture.

    Attributes:
      student_temperature, teacher_temperature: of sampling; steps are judged at temperature 1.
      max_step_tokens: a step that reaches it closes.
      max_total: most tokens of a response.
      train: what response tokens carry weight for: `likelihood`, `divergence` or `none`.
      chunk: tokens of a turn. Changes speed, not results.
    """

    student_temperature: Temperature = 1.0
    teacher_temperature: Temperature = 1.0
    max_step_tokens: Count = 8192
    max_total: Count = 32768
    train: Train = "divergence"
    chunk: Count = 64

    def __post_init__(self):
        check(self)


class StepRecord(flax.struct.PyTreeNode):
    """Who wrote what.

    Attributes:
      student_steps_B, teacher_steps_B: steps of the text by their writer. An end of sequence on
        its own is no step.
      rejected_B: the student's steps that did not stand.
      truncated_B: the response ran out of budget before an end of sequence.
      steps_BxN: step index of each response token, 0 in padding.
    """

    student_steps_B: jax.Array
    teacher_steps_B: jax.Array
    rejected_B: jax.Array
    truncated_B: jax.Array
    steps_BxN: jax.Array

    @property
    def accepted_share(self) -> jax.Array:
        """Share of the student's steps that stood, over all rows; 1 where it wrote none."""
        accepted, rejected = jnp.sum(self.student_steps_B), jnp.sum(self.rejected_B)
        written = accepted + rejected
        return jnp.where(written > 0, accepted / jnp.maximum(written, 1), 1.0)


class StepRolloutState(flax.struct.PyTreeNode):
    """Everything between two turns.

    Attributes:
      caches: the student's and the teacher's, by `Role`; both hold the text but for its last token.
      cursor: where the text stands; active in rows that are not done.
      writer_B: the `Role` whose turn it is.
      steps: the open step.
      text_BxT: prompt and response, by position; likewise `writers_BxT`, a `Source` per token.
      record: the steps so far.
      keys_B: keys of the rows' rounds; with `ids_B`, their samples, they make the noise.
    """

    caches: CachePair
    cursor: Cursor
    writer_B: jax.Array
    steps: StepState
    text_BxT: jax.Array
    writers_BxT: jax.Array
    record: StepRecord
    keys_B: jax.Array
    ids_B: jax.Array


StepRollout = Callable[..., tuple[Trajectories, StepRecord]]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Writers):
    """What is fixed before a rollout; see `make_step_slots`."""

    settings: StepRolloutSettings
    policy: Policy
    table: StepTable


class Cut(flax.struct.PyTreeNode):
    """Where a chunk is cut.

    Attributes:
      cut_B: the text changes hands within the chunk.
      column_B: the last token of the step at which it does.
      rejected_BxC: the step that ends with this token does not stand.
      rewinds_B: the cut lies before that step, which is rejected, and not behind it.
    """

    cut_B: jax.Array
    column_B: jax.Array
    rejected_BxC: jax.Array
    rewinds_B: jax.Array


def begin(plan: Plan, caches: CachePair, rows: Rows) -> StepRolloutState:
    """The state before the first turn, from caches of the prompts but for their last tokens."""
    batch, total = rows.lengths_B.shape[0], plan.settings.max_total
    integers = jnp.zeros(batch, jnp.int32)
    text = jnp.pad(rows.prompts_BxP, ((0, 0), (0, total)))
    coin_keys = row_role_keys(rows.keys_B, rows.ids_B, Role.STEP_COIN, 0)
    teacher_opens = plan.policy.teacher_opens(coin_keys, integers[:, None])[:, 0]
    return StepRolloutState(
        caches=caches,
        cursor=rows.cursor(),
        writer_B=jnp.where(teacher_opens, int(Role.TEACHER), int(Role.STUDENT)),
        steps=init_steps(batch, plan.table),
        text_BxT=text,
        writers_BxT=jnp.zeros_like(text),
        record=StepRecord(
            student_steps_B=integers,
            teacher_steps_B=integers,
            rejected_B=integers,
            truncated_B=jnp.zeros(batch, bool),
            steps_BxN=jnp.zeros((batch, total), jnp.int32),
        ),
        keys_B=rows.keys_B,
        ids_B=rows.ids_B,
    )


def find_cut(
    policy: Policy, listener: Role, seen: Steps, final_BxC: jax.Array, coin_keys_B: jax.Array
) -> Cut:
    """Where the listener takes over: before a step that does not stand, or to open the next."""
    rejected = jnp.zeros_like(seen.ends)
    if listener == Role.TEACHER and isinstance(policy, SKD):
        rejected = seen.ends & ~policy.accepts(seen.cost)
    teacher_next = policy.teacher_opens(coin_keys_B, seen.step + 1)
    passed_on = seen.ends & ~final_BxC & (teacher_next == (listener == Role.TEACHER))
    cuts = rejected | passed_on
    cut, column = jnp.any(cuts, axis=1), jnp.argmax(cuts, axis=1)
    return Cut(cut, column, rejected, cut & pick(rejected, column))


def record_turn(
    record: StepRecord, writer: Role, seen: Steps, cut: Cut, old: Cursor, count_B: jax.Array
) -> StepRecord:
    """Adds the steps of a chunk behind `old` that stand, and the one that does not."""
    size = seen.ends.shape[1]
    last_B = jnp.where(cut.cut_B, cut.column_B, size)
    stands = seen.ends & (jnp.arange(size) <= last_B[:, None])
    num_steps = jnp.sum(stands & ~cut.rejected_BxC, axis=1)
    return record.replace(
        student_steps_B=record.student_steps_B + num_steps * (writer == Role.STUDENT),
        teacher_steps_B=record.teacher_steps_B + num_steps * (writer == Role.TEACHER),
        rejected_B=record.rejected_B + cut.rewinds_B,
        steps_BxN=put(record.steps_BxN, seen.step, old.length_B - old.origin_B, count_B),
    )


def turn(
    plan: Plan,
    writer: Role,
    keys_B: jax.Array,
    coin_keys_B: jax.Array,
    params: ParamsPair,
    state: StepRolloutState,
) -> StepRolloutState:
    """One model writes a chunk in its rows, the other follows, and the chunk is cut."""
    listener = Role.TEACHER if writer == Role.STUDENT else Role.STUDENT
    writing = state.cursor.active_B & (state.writer_B == writer)
    old = state.cursor.replace(active_B=writing)
    own_cache, new, written = plan.write(writer, params, state.caches, old, keys_B)
    tokens, count_B = written.tokens_BxC, written.count_B
    hidden, other_cache = plan.follow(listener, params, state.caches, old, written)
    costs = jnp.zeros(tokens.shape, jnp.float32)
    if writer == Role.STUDENT and isinstance(plan.policy, SKD):
        costs = written.log_probs_BxC - token_log_probs(
            params[listener], plan.configs[listener], hidden, tokens, plan.vocab_size
        )
    lengths = old.length_B[:, None] + jnp.arange(plan.chunk_tokens) + 1
    eos = plan.is_eos(tokens)
    final = eos | (lengths >= old.limit_B[:, None])
    steps, seen = read_tokens(
        state.steps, tokens, count_B, final, eos, costs, plan.table, plan.settings.max_step_tokens
    )

    cut = find_cut(plan.policy, listener, seen, final, coin_keys_B)
    rewound_B = jnp.where(cut.rewinds_B, pick(seen.count, cut.column_B), 0)
    length = jnp.where(cut.cut_B, pick(lengths, cut.column_B) - rewound_B, new.length_B)
    text = put(state.text_BxT, tokens, old.length_B, count_B)
    token = pick(text, length - 1)
    ended = writing & ~new.active_B & ~cut.cut_B
    record = record_turn(state.record, writer, seen, cut, old, count_B)
    next_step_B = pick(seen.step, cut.column_B) + jnp.where(cut.rewinds_B, 0, 1)
    writers = jnp.full_like(tokens, SOURCES[writer])
    caches = (own_cache, other_cache) if writer == Role.STUDENT else (other_cache, own_cache)
    return state.replace(
        caches=caches,
        cursor=state.cursor.replace(
            token_B=token, length_B=length, active_B=state.cursor.active_B & ~ended
        ),
        writer_B=jnp.where(cut.cut_B, int(listener), state.writer_B),
        steps=restart(steps, cut.cut_B, next_step_B),
        text_BxT=text,
        writers_BxT=put(state.writers_BxT, writers, old.length_B, count_B),
        record=record.replace(truncated_B=record.truncated_B | (ended & ~plan.is_eos(token))),
    )


def turns(plan: Plan, params: ParamsPair, state: StepRolloutState) -> StepRolloutState:
    """The student's turn in its rows, then the teacher's in its own."""
    coin_keys = row_role_keys(state.keys_B, state.ids_B, Role.STEP_COIN, 0)
    for writer in (Role.STUDENT, Role.TEACHER):
        # A rejected step is the start of a new attempt. What the student writes later may lie where
        # the rejected step lay: its noise must not be that which is known to have drawn a step that
        # was rejected.
        attempt = state.record.rejected_B if writer == Role.STUDENT else 0
        keys = row_role_keys(state.keys_B, state.ids_B, writer, attempt)
        writing_B = state.cursor.active_B & (state.writer_B == writer)
        step = functools.partial(turn, plan, writer, keys, coin_keys, params)
        state = where_any(writing_B, step, state)
    return state


def progress(state: StepRolloutState) -> Progress:
    """How far rows are."""
    cursor = state.cursor
    return Progress(length_B=cursor.open_B, written_B=cursor.length_B - cursor.origin_B)


def finish(plan: Plan, state: StepRolloutState) -> tuple[Trajectories, StepRecord]:
    """The text as training rows, and who wrote it."""
    first, lengths = state.cursor.origin_B, state.cursor.length_B
    settings = plan.settings
    trajectories = assemble(state.text_BxT, state.writers_BxT, first, lengths, settings.train)
    written = jnp.arange(settings.max_total) < (lengths - first)[:, None]
    steps = jnp.where(written, state.record.steps_BxN, 0)
    return trajectories, state.record.replace(steps_BxN=steps)


def make_step_slots(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    policy: Policy,
    settings: StepRolloutSettings,
    table: StepTable,
    eos_ids: Sequence[int],
    vocab_size: int | None = None,
) -> Slots:
    """Student and teacher writing a text together, in parts.

    Its parameters are the pair (student's, teacher's), and it ends in (Trajectories, StepRecord).

    Args:
      policy: `ImitKD(p)` or `SKD(beta)`. With p = 0 or beta = 0 the text is that of
        `distill.rollouts.one_writer` with the student's role, with p = 1 that with the teacher's.
      table: the delimiter's automaton over the shared token ids.
      eos_ids: tokens that end a text; one belongs to the step it ends.
      vocab_size: only ids below it are sampled and judged: those that both models and the
        tokenizer know. By default the narrower model's width.

    Raises:
      ValueError: no end-of-sequence token, or p or beta out of range.
    """
    check_policy(policy)
    configs = student_config, teacher_config
    vocab = common_ids(vocab_size, *(config.vocab_size for config in configs))
    plan = Plan(configs, vocab, check_ends(eos_ids), settings, policy, table)
    return plan.slots(begin, turns, progress, finish)


@arguments_of(make_step_slots)
def make_step_rollout(*args: Any, **kwargs: Any) -> StepRollout:
    """Builds the pure function by which student and teacher write a text together.

    Args:
      args, kwargs: the arguments of `make_step_slots`.

    Returns:
      `rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B],
      sample_ids [B], key) -> (Trajectories [B, P + max_total], StepRecord)`, to be jitted by the
      caller. The same key, sample id and parameters give the same trajectory in any batch.

    Raises:
      ValueError: no end-of-sequence token, or p or beta out of range.
    """
    return rollout_of(make_step_slots(*args, **kwargs))
