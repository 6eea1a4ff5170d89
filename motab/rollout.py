"""The backtracking rollout (MOTAB, Algorithm 1), one chunk at a time.

Until a breach the teacher has no influence on the student, so it need not be asked step by step:
the student writes a chunk, one teacher pass over the chunk gives every value and boundary in it
and extends the teacher's own cache, and a breached row goes back to its last safe state by moving
the teacher's length there. The teacher then continues that row while others go on. The result does
not depend on the chunk length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

import models
from distill.losses.scores import score_tokens
from distill.steps.table import StepTable
from distill.trajectories import Trajectories
from models.decoding.decode import Cache, Cursor, decode, extend, init_cache, prefill, put, unstack
from models.decoding.sampling import Sampling
from models.decoding.slots import Slots, run, whole_batch
from models.parameters import Params
from motab.credit import find_backtrack
from motab.monitor import monitor
from motab.rollout_state import Record, RolloutState, begin, progress
from motab.settings import MotabSettings
from motab.stitching import Pieces, pick, stitch

Rollout = Callable[..., tuple[Trajectories, Record]]


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
    if not eos_ids:
        raise ValueError("eos_ids is empty: no text could end before its budget.")
    s = settings
    configs = student_config, teacher_config
    eos_ids = tuple(eos_ids)
    vocab = min(student_config.vocab_size, teacher_config.vocab_size, vocab_size or 2**31)
    student_sampling = Sampling(s.student_temperature, vocab_size=vocab)
    teacher_sampling = Sampling(s.teacher_temperature, vocab_size=vocab)
    chunk_tokens = min(s.chunk, s.max_total)

    def is_eos(tokens: jax.Array) -> jax.Array:
        return jnp.isin(tokens, jnp.asarray(eos_ids))

    def write_and_monitor(
        student_params: Params, teacher_params: Params, state: RolloutState
    ) -> RolloutState:
        """The student writes a chunk, the teacher judges it, breached rows change hands."""
        old = state.student
        cache, new, written = decode(
            student_params, student_config, state.caches[0], old, state.student_keys_B,
            chunk_tokens, student_sampling, eos_ids,
        )  # fmt: skip
        text = put(state.text_BxT, written.tokens_BxC, old.length_B, written.count_B)

        inputs = jnp.concatenate([old.token_B[:, None], written.tokens_BxC[:, :-1]], axis=1)
        valid = jnp.arange(chunk_tokens) < written.count_B[:, None]
        hidden, teacher_cache = extend(
            teacher_params, teacher_config, inputs, old.length_B - 1, state.caches[1], valid
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
        room = _room(s, old.limit_B - old.origin_B, kept + inserted, start - old.origin_B)
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
        return state.replace(
            caches=(cache, teacher_cache),
            student=new.replace(
                length_B=old.origin_B + kept, active_B=new.active_B & ~breached
            ),
            teacher=teacher,
            monitor=monitor_state,
            record=record,
            text_BxT=text,
            start_B=jnp.where(handed_over, start, state.start_B),
        )  # fmt: skip

    def correct(teacher_params: Params, state: RolloutState) -> RolloutState:
        """The teacher continues breached rows from their last safe state (Eq. 9)."""
        old = state.teacher
        cache, new, written = decode(
            teacher_params, teacher_config, state.caches[1], old, state.teacher_keys_B,
            chunk_tokens, teacher_sampling, eos_ids,
        )  # fmt: skip
        suffix = put(
            state.suffix_BxN, written.tokens_BxC, old.length_B - state.start_B, written.count_B
        )
        ended = old.active_B & ~new.active_B
        truncated = state.record.truncated_B | (ended & ~is_eos(new.token_B))
        return state.replace(
            caches=(state.caches[0], cache),
            teacher=new,
            suffix_BxN=suffix,
            record=state.record.replace(truncated_B=truncated),
        )

    def rollout_chunk(params: tuple[Params, Params], state: RolloutState) -> RolloutState:
        state = jax.lax.cond(
            jnp.any(state.student.active_B),
            lambda state: write_and_monitor(*params, state),
            lambda state: state,
            state,
        )
        return jax.lax.cond(
            jnp.any(state.teacher.active_B),
            lambda state: correct(params[1], state),
            lambda state: state,
            state,
        )

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

    def finish(state: RolloutState) -> tuple[Trajectories, Record]:
        student = state.student
        pieces = Pieces(
            text_BxT=state.text_BxT,
            prompt_lengths_B=student.origin_B,
            student_lengths_B=student.length_B - student.origin_B,
            suffix_BxN=state.suffix_BxN,
            suffix_lengths_B=state.teacher.length_B - state.start_B,
        )
        trajectories = stitch(
            pieces, state.record, s, tuple(delimiter_ids), tuple(revision_ids), eos_ids
        )
        return trajectories, state.record

    return Slots(
        chunk_tokens=chunk_tokens,
        # A student's chunk may end in a breach and the correction's chunk follow it.
        reach=2 * chunk_tokens,
        max_tokens=s.max_total,
        prepare=lambda params: (unstack(params[0], configs[0]), unstack(params[1], configs[1])),
        init_caches=lambda batch, capacity: tuple(init_cache(c, batch, capacity) for c in configs),
        prefill=prefill_caches,
        begin=lambda caches, rows: begin((caches[0], caches[1]), rows, s.max_total, table),
        chunk=rollout_chunk,
        progress=progress,
        finish=finish,
        configs=configs,
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
    slots = make_slots(
        student_config, teacher_config, settings, table, delimiter_ids, revision_ids, eos_ids,
        vocab_size,
    )  # fmt: skip

    def rollout(
        student_params: Params,
        teacher_params: Params,
        prompts: jax.Array,
        prompt_lengths: jax.Array,
        sample_ids: jax.Array,
        key: jax.Array,
    ) -> tuple[Trajectories, Record]:
        rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
        return run(slots, (student_params, teacher_params), rows)

    return rollout


def _room(
    settings: MotabSettings, budget_B: jax.Array, kept_B: jax.Array, start_B: jax.Array
) -> jax.Array:
    """Tokens that a correction may have, so that the whole response fits its budget.

    Before it lie `kept_B` tokens where it is stitched to the student's text and the revision text,
    and `start_B` where it follows the last safe state.
    """
    before = kept_B if settings.stitch else start_B
    return jnp.minimum(budget_B - before, settings.max_correction)
