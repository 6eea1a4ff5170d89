"""From pieces to training rows: student steps + revision text + correction (MOTAB Eq. 10, 11)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from distill.rollouts.assembly import assemble
from distill.trajectories import Source, Trajectories
from models.decoding.decode import pick
from motab.rollout_state import Plan, Record, RolloutState


def safe_length(record: Record) -> jax.Array:
    """Response tokens [B] before the root step; all of them are of safe steps."""
    return jnp.where(record.root_B > 0, pick(record.step_ends_BxL, record.root_B - 1), 0)


def borders(
    plan: Plan, record: Record, text_BxT: jax.Array, first_B: jax.Array, end_B: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where in a breached row the student's part ends, the revision text starts, the correction.

    Args:
      text_BxT: prompt and student tokens.
      first_B, end_B: where the student's tokens start in it, and end with the breaching step.

    Returns:
      Three positions [B]; they mean nothing in rows that did not breach.
    """
    if not plan.settings.stitch:
        return (first_B + safe_length(record),) * 3
    end_B = end_B - plan.is_eos(pick(text_BxT, end_B - 1))
    closed_B = pick(record.delimited_BxL, record.breach_B)
    revision_B = end_B + jnp.where(closed_B, 0, len(plan.delimiter_ids))
    return end_B, revision_B, revision_B + len(plan.revision_ids)


def stitch(plan: Plan, state: RolloutState) -> Trajectories:
    """Joins the token ids of every row and says which of them train, and how.

    A breached row is its steps up to the breaching one, flawed ones included, the revision text
    and the correction; an end of sequence before the revision text is taken out, and a delimiter
    put in where the breaching step has none. Any other row is the student's text as it is.
    """
    settings, record, text_BxT = plan.settings, state.record, state.text_BxT
    breached = (record.breach_B >= 0) & ~record.dropped_B
    first, end = state.student.origin_B, state.student.length_B
    student_end, revision_start, suffix_start = (
        jnp.where(breached, at, end) for at in borders(plan, record, text_BxT, first, end)
    )
    suffix_lengths_B = state.teacher.length_B - state.start_B
    suffix_end = suffix_start + jnp.where(breached, suffix_lengths_B, 0)
    at = jnp.broadcast_to(jnp.arange(text_BxT.shape[1]), text_BxT.shape)

    def piece(ids: jax.Array, start_B: jax.Array) -> jax.Array:
        index = jnp.clip(at - start_B[:, None], 0, ids.shape[1] - 1)
        return jnp.take_along_axis(
            jnp.broadcast_to(ids, (at.shape[0], ids.shape[1])), index, axis=1
        )

    # From the last piece to the first, each one overrides what lies before its end.
    tokens = piece(state.suffix_BxN, suffix_start)
    if settings.stitch:
        tokens = jnp.where(
            at < suffix_start[:, None],
            piece(jnp.asarray([plan.revision_ids]), revision_start),
            tokens,
        )
        tokens = jnp.where(
            at < revision_start[:, None],
            piece(jnp.asarray([plan.delimiter_ids]), student_end),
            tokens,
        )
    tokens = jnp.where(at < student_end[:, None], text_BxT, tokens)

    steps = piece(record.steps_BxN, first)
    breach, root = record.breach_B[:, None], record.root_B[:, None]
    flawed = breached[:, None] & (steps >= root)
    students = jnp.where(flawed, Source.FLAWED, Source.STUDENT)
    after_it = jnp.where(at < suffix_start[:, None], Source.REVISION, Source.TEACHER)
    writers = jnp.where(at < student_end[:, None], students, after_it)
    rows = assemble(tokens, writers, first, suffix_end, "none")

    source = rows.source_BxT
    by_student = (source == Source.STUDENT) | (source == Source.FLAWED)
    corrected = (source == Source.REVISION) | (source == Source.TEACHER)
    passed = by_student & (~breached[:, None] | (steps < breach))
    student_trains = {
        "eq11": passed,
        "response": by_student,
        "correction": jnp.zeros_like(by_student),
        "before_root": by_student & ~flawed,
    }[settings.loss_on]
    trains = (student_trains | corrected) & ~record.dropped_B[:, None]
    by_divergence = trains & passed & (settings.safe_loss != "likelihood")
    return rows.replace(
        likelihood_weights_BxT=(trains & ~by_divergence).astype(jnp.float32),
        divergence_weights_BxT=by_divergence.astype(jnp.float32),
    )
