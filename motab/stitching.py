"""From pieces to training rows: student steps + revision text + correction (MOTAB Eq. 10, 11)."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.trajectories import Source, Trajectories
from motab.rollout_state import Record
from motab.settings import MotabSettings


class Pieces(flax.struct.PyTreeNode):
    """What student and teacher wrote.

    Attributes:
      text_BxT: prompt and student tokens; the row width T is that of the result, too.
      prompt_lengths_B, student_lengths_B: lengths of the two parts.
      suffix_BxN, suffix_lengths_B: corrections; length 0 where there is none.
    """

    text_BxT: jax.Array
    prompt_lengths_B: jax.Array
    student_lengths_B: jax.Array
    suffix_BxN: jax.Array
    suffix_lengths_B: jax.Array


def pick(buffer_BxN: jax.Array, column_B: jax.Array) -> jax.Array:
    """One entry of each row; a negative column reads the first."""
    return jnp.take_along_axis(buffer_BxN, jnp.maximum(column_B, 0)[:, None], axis=1)[:, 0]


def stitch(
    pieces: Pieces,
    record: Record,
    settings: MotabSettings,
    delimiter_ids: tuple[int, ...],
    revision_ids: tuple[int, ...],
    eos_ids: tuple[int, ...],
) -> Trajectories:
    """Joins the token ids of every row and says which of them train, and how.

    A breached row is its steps up to the breaching one, flawed ones included, the revision text
    and the correction; an end of sequence before the revision text is taken out, and a delimiter
    put in where the breaching step has none. Any other row is the student's text as it is.
    """
    breached = (record.breach_B >= 0) & ~record.dropped_B
    first = pieces.prompt_lengths_B
    if settings.stitch:
        end = first + pieces.student_lengths_B
        final_token = pick(pieces.text_BxT, end - 1)
        ends_text = jnp.isin(final_token, jnp.asarray(eos_ids))
        student_end = jnp.where(breached & ends_text, end - 1, end)
        closed = pick(record.delimited_BxL, record.breach_B)
        delimiter = jnp.where(breached & ~closed, len(delimiter_ids), 0)
        revision = jnp.where(breached, len(revision_ids), 0)
    else:
        before_root = jnp.where(record.root_B > 0, pick(record.step_ends_BxL, record.root_B - 1), 0)
        student_end = first + jnp.where(breached, before_root, pieces.student_lengths_B)
        delimiter = revision = jnp.zeros_like(first)
    revision_start = student_end + delimiter
    suffix_start = revision_start + revision
    suffix_end = suffix_start + jnp.where(breached, pieces.suffix_lengths_B, 0)

    width = pieces.text_BxT.shape[1]
    at = jnp.broadcast_to(jnp.arange(width), pieces.text_BxT.shape)

    def piece(ids: jax.Array, start_B: jax.Array) -> jax.Array:
        index = jnp.clip(at - start_B[:, None], 0, ids.shape[1] - 1)
        return jnp.take_along_axis(
            jnp.broadcast_to(ids, (at.shape[0], ids.shape[1])), index, axis=1
        )

    # From the last piece to the first, each one overrides what lies before its end.
    tokens = piece(pieces.suffix_BxN, suffix_start)
    if settings.stitch:
        tokens = jnp.where(
            at < suffix_start[:, None], piece(jnp.asarray([revision_ids]), revision_start), tokens
        )
        tokens = jnp.where(
            at < revision_start[:, None], piece(jnp.asarray([delimiter_ids]), student_end), tokens
        )
    tokens = jnp.where(at < student_end[:, None], pieces.text_BxT, tokens)
    present = at < suffix_end[:, None]

    steps = piece(record.steps_BxN, first)
    breach, root = record.breach_B[:, None], record.root_B[:, None]
    flawed = breached[:, None] & (steps >= root)
    source = jnp.where(at < suffix_start[:, None], Source.REVISION, Source.TEACHER)
    source = jnp.where(
        at < student_end[:, None], jnp.where(flawed, Source.FLAWED, Source.STUDENT), source
    )
    source = jnp.where(at < first[:, None], Source.PROMPT, source)
    source = jnp.where(present, source, Source.PADDING)

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
    return Trajectories(
        tokens_BxT=jnp.where(present, tokens, 0).astype(jnp.int32),
        source_BxT=source.astype(jnp.int32),
        likelihood_weights_BxT=(trains & ~by_divergence).astype(jnp.float32),
        divergence_weights_BxT=by_divergence.astype(jnp.float32),
        positions_BxT=at.astype(jnp.int32),
        segment_ids_BxT=present.astype(jnp.int32),
    )
