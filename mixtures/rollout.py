"""Texts that student and teacher write in turns, step by step (ImitKD, SKD).

In a turn one model writes a chunk, and the other runs over it in one pass, so that both caches hold
the text so far. The chunk is cut where the text changes hands: after a step when the other begins
the next, or before a step that does not stand. What lies behind the cut is dropped by moving the
row's length there. The result does not depend on the chunk length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.log_probs import token_log_probs
from distill.roles import Role, role_key
from distill.rollouts.assembly import Train, assemble
from distill.rollouts.one_writer import SOURCES
from distill.steps.table import StepTable
from distill.steps.values import StepState, init_steps, read_tokens, restart
from distill.trajectories import Trajectories
from mixtures.policies import SKD, Policy, check_policy
from models.checks import Count, Temperature, check
from models.decoding.decode import (
    Cache,
    Cursor,
    decode,
    extend,
    init_cache,
    prefill,
    put,
    unstack,
)
from models.decoding.sampling import Sampling
from models.decoding.slots import Progress, Rows, Slots, run, whole_batch
from models.parameters import Params


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

    caches: tuple[Cache, Cache]
    cursor: Cursor
    writer_B: jax.Array
    steps: StepState
    text_BxT: jax.Array
    writers_BxT: jax.Array
    record: StepRecord
    keys_B: jax.Array
    ids_B: jax.Array


StepRollout = Callable[..., tuple[Trajectories, StepRecord]]


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
    if not eos_ids:
        raise ValueError("eos_ids is empty: no text could end before its budget.")
    check_policy(policy)
    s = settings
    eos_ids = tuple(eos_ids)
    configs = (student_config, teacher_config)
    vocab = min(student_config.vocab_size, teacher_config.vocab_size, vocab_size or 2**31)
    samplings = (
        Sampling(s.student_temperature, vocab_size=vocab),
        Sampling(s.teacher_temperature, vocab_size=vocab),
    )
    chunk_tokens = min(s.chunk, s.max_total)

    def is_eos(tokens: jax.Array) -> jax.Array:
        return jnp.isin(tokens, jnp.asarray(eos_ids))

    def turn(
        writer: Role,
        params: tuple[Params, Params],
        state: StepRolloutState,
        keys_B: jax.Array,
        coin_keys_B: jax.Array,
    ) -> StepRolloutState:
        """One model writes a chunk in its rows, the other follows, and the chunk is cut."""
        listener = Role.TEACHER if writer == Role.STUDENT else Role.STUDENT
        writing = state.cursor.active_B & (state.writer_B == writer)
        old = state.cursor.replace(active_B=writing)
        written_cache, new, written = decode(
            params[writer], configs[writer], state.caches[writer], old, keys_B, chunk_tokens,
            samplings[writer], eos_ids,
        )  # fmt: skip
        tokens = written.tokens_BxC
        inputs = jnp.concatenate([old.token_B[:, None], tokens[:, :-1]], axis=1)
        columns = jnp.arange(chunk_tokens)
        valid = columns < written.count_B[:, None]
        hidden, followed_cache = extend(
            params[listener], configs[listener], inputs, old.length_B - 1, state.caches[listener],
            valid,
        )  # fmt: skip
        judged = writer == Role.STUDENT and isinstance(policy, SKD)
        costs = jnp.zeros(tokens.shape, jnp.float32)
        if judged:
            costs = written.log_probs_BxC - token_log_probs(
                params[listener], configs[listener], hidden, tokens, vocab
            )
        lengths = old.length_B[:, None] + columns + 1
        eos = is_eos(tokens)
        final = eos | (lengths >= old.limit_B[:, None])
        steps, seen = read_tokens(
            state.steps, tokens, written.count_B, final, eos, costs, table, s.max_step_tokens
        )

        rejected = jnp.zeros_like(seen.ends)
        if judged and isinstance(policy, SKD):
            rejected = seen.ends & ~policy.accepts(seen.cost)
        teacher_next = policy.teacher_opens(coin_keys_B, seen.step + 1)
        passed_on = seen.ends & ~final & (teacher_next == (listener == Role.TEACHER))
        cuts = rejected | passed_on
        cut, column = jnp.any(cuts, axis=1), jnp.argmax(cuts, axis=1)

        def at_cut(x_BxC: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x_BxC, column[:, None], axis=1)[:, 0]

        rewinds = cut & at_cut(rejected)
        end = at_cut(lengths) - jnp.where(rewinds, at_cut(seen.count), 0)
        length = jnp.where(cut, end, new.length_B)
        text = put(state.text_BxT, tokens, old.length_B, written.count_B)
        token = jnp.take_along_axis(text, length[:, None] - 1, axis=1)[:, 0]
        ended = writing & ~new.active_B & ~cut

        stands = seen.ends & (columns <= jnp.where(cut, column, chunk_tokens)[:, None])
        num_steps = jnp.sum(stands & ~rejected, axis=1)
        record = state.record
        record = StepRecord(
            student_steps_B=record.student_steps_B + num_steps * (writer == Role.STUDENT),
            teacher_steps_B=record.teacher_steps_B + num_steps * (writer == Role.TEACHER),
            rejected_B=record.rejected_B + rewinds,
            truncated_B=record.truncated_B | (ended & ~is_eos(token)),
            steps_BxN=put(
                record.steps_BxN, seen.step, old.length_B - old.origin_B, written.count_B
            ),
        )
        caches = [written_cache, followed_cache]
        return state.replace(
            caches=(caches[writer != Role.STUDENT], caches[writer == Role.STUDENT]),
            cursor=state.cursor.replace(
                token_B=token, length_B=length, active_B=state.cursor.active_B & ~ended
            ),
            writer_B=jnp.where(cut, int(listener), state.writer_B),
            steps=restart(steps, cut, at_cut(seen.step) + ~rewinds),
            text_BxT=text,
            writers_BxT=put(
                state.writers_BxT,
                jnp.full_like(tokens, SOURCES[writer]),
                old.length_B,
                written.count_B,
            ),
            record=record,
        )

    def turns(params: tuple[Params, Params], state: StepRolloutState) -> StepRolloutState:
        coin_keys = _noise(state, Role.STEP_COIN, 0)
        for writer in (Role.STUDENT, Role.TEACHER):
            # A rejected step is the start of a new attempt. What the student writes later may lie
            # where the rejected step lay: its noise must not be that which is known to have drawn
            # a step that was rejected.
            attempt = state.record.rejected_B if writer == Role.STUDENT else 0
            keys = _noise(state, writer, attempt)
            state = jax.lax.cond(
                jnp.any(state.cursor.active_B & (state.writer_B == writer)),
                lambda state, w=writer, k=keys: turn(w, params, state, k, coin_keys),
                lambda state: state,
                state,
            )
        return state

    def prefill_caches(
        params: tuple[Params, Params],
        prompts: jax.Array,
        lengths: jax.Array,
        caches: tuple[Cache, ...],
    ) -> tuple[Cache, Cache]:
        student, teacher = (
            prefill(p, config, prompts, lengths, cache)
            for p, config, cache in zip(params, configs, caches, strict=True)
        )
        return student, teacher

    def progress(state: StepRolloutState) -> Progress:
        cursor = state.cursor
        return Progress(
            length_B=jnp.where(cursor.active_B, cursor.length_B, 0),
            written_B=cursor.length_B - cursor.origin_B,
        )

    def finish(state: StepRolloutState) -> tuple[Trajectories, StepRecord]:
        first, lengths = state.cursor.origin_B, state.cursor.length_B
        trajectories = assemble(state.text_BxT, state.writers_BxT, first, lengths, s.train)
        written = jnp.arange(s.max_total) < (lengths - first)[:, None]
        steps = jnp.where(written, state.record.steps_BxN, 0)
        return trajectories, state.record.replace(steps_BxN=steps)

    return Slots(
        chunk_tokens=chunk_tokens,
        reach=2 * chunk_tokens,  # both may write a chunk
        max_tokens=s.max_total,
        prepare=lambda params: (unstack(params[0], configs[0]), unstack(params[1], configs[1])),
        init_caches=lambda batch, capacity: tuple(init_cache(c, batch, capacity) for c in configs),
        prefill=prefill_caches,
        begin=lambda caches, rows: _begin((caches[0], caches[1]), rows, policy, s.max_total, table),
        chunk=turns,
        progress=progress,
        finish=finish,
        configs=(student_config, teacher_config),
    )


def make_step_rollout(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    policy: Policy,
    settings: StepRolloutSettings,
    table: StepTable,
    eos_ids: Sequence[int],
    vocab_size: int | None = None,
) -> StepRollout:
    """Builds the pure function by which student and teacher write a text together.

    Args:
      policy, table, eos_ids, vocab_size: as in `make_step_slots`.

    Returns:
      `rollout(student_params, teacher_params, prompts [B, P], prompt_lengths [B],
      sample_ids [B], key) -> (Trajectories [B, P + max_total], StepRecord)`, to be jitted by the
      caller. The same key, sample id and parameters give the same trajectory in any batch.

    Raises:
      ValueError: no end-of-sequence token, or p or beta out of range.
    """
    slots = make_step_slots(
        student_config, teacher_config, policy, settings, table, eos_ids, vocab_size
    )

    def rollout(
        student_params: Params,
        teacher_params: Params,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        sample_ids: jax.Array,
        key: jax.Array,
    ) -> tuple[Trajectories, StepRecord]:
        rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
        return run(slots, (student_params, teacher_params), rows)

    return rollout


def _noise(rows: StepRolloutState | Rows, role: Role, attempt: int | jax.Array) -> jax.Array:
    """Keys [B] of one role's noise in every row; the attempt may differ by row."""

    def row(key: jax.Array, sample_id: jax.Array, attempt: jax.Array) -> jax.Array:
        return jax.random.fold_in(role_key(key, role, attempt), sample_id)

    attempt_B = jnp.broadcast_to(attempt, rows.ids_B.shape)
    return jax.vmap(row)(rows.keys_B, rows.ids_B, attempt_B)


def _begin(
    caches: tuple[Cache, Cache], rows: Rows, policy: Policy, total: int, table: StepTable
) -> StepRolloutState:
    """The state before the first turn, from caches of the prompts but for their last tokens."""
    batch = rows.lengths_B.shape[0]
    integers = jnp.zeros(batch, jnp.int32)
    text = jnp.pad(rows.prompts_BxP, ((0, 0), (0, total)))
    teacher_opens = policy.teacher_opens(_noise(rows, Role.STEP_COIN, 0), integers[:, None])[:, 0]
    return StepRolloutState(
        caches=caches,
        cursor=Cursor(
            token_B=rows.last_tokens(),
            length_B=rows.lengths_B,
            limit_B=rows.lengths_B + rows.budgets_B,
            origin_B=rows.lengths_B,
            active_B=rows.budgets_B > 0,
        ),
        writer_B=jnp.where(teacher_opens, int(Role.TEACHER), int(Role.STUDENT)),
        steps=init_steps(batch, table),
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
