"""What the backtracking rollout carries from chunk to chunk, and how a row begins."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from distill.losses.scores import TokenScores
from distill.roles import Role, row_role_keys
from distill.rollouts.two_models import CachePair, Writers
from distill.steps.table import StepTable
from models.decoding.decode import Cursor
from models.decoding.slots import Progress, Rows
from motab.monitor import MonitorState, init_monitor
from motab.settings import MotabSettings


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Writers):
    """What is fixed before a rollout; see `motab.make_slots`."""

    settings: MotabSettings
    table: StepTable
    delimiter_ids: tuple[int, ...]
    revision_ids: tuple[int, ...]


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
      caches: the student's and the teacher's; both keep token t of the student's text in slot t;
        the teacher's is rewound at a breach.
      student, teacher: cursors; the teacher's is active in rows under correction.
      monitor: the open step of every row.
      record: the steps so far.
      text_BxT: prompt and student tokens, by position.
      suffix_BxN: corrections.
      start_B: context length at which a row's correction starts.
      student_keys_B, teacher_keys_B: keys of their noise; a correction is a second attempt.
    """

    caches: CachePair
    student: Cursor
    teacher: Cursor
    monitor: MonitorState
    record: Record
    text_BxT: jax.Array
    suffix_BxN: jax.Array
    start_B: jax.Array
    student_keys_B: jax.Array
    teacher_keys_B: jax.Array


def begin(plan: Plan, caches: CachePair, rows: Rows) -> RolloutState:
    """The state before the first chunk, from caches of the prompts but for their last tokens."""
    batch, total = rows.lengths_B.shape[0], plan.settings.max_total
    number, flag = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)
    numbers = jnp.zeros((batch, total), jnp.int32)
    nats = jnp.zeros((batch, total), jnp.float32)
    cursor = rows.cursor()
    record = Record(
        values_BxL=nats,
        boundaries_BxL=nats,
        step_ends_BxL=numbers,
        delimited_BxL=jnp.zeros((batch, total), bool),
        num_steps_B=number,
        breach_B=number - 1,
        root_B=number - 1,
        dropped_B=flag,
        truncated_B=flag,
        steps_BxN=numbers,
        scores=TokenScores(*[nats] * 5),
    )
    return RolloutState(
        caches=caches,
        student=cursor,
        teacher=cursor.replace(active_B=flag),
        monitor=init_monitor(batch, plan.table),
        record=record,
        text_BxT=jnp.pad(rows.prompts_BxP, ((0, 0), (0, total))),
        suffix_BxN=numbers,
        start_B=rows.lengths_B,
        student_keys_B=row_role_keys(rows.keys_B, rows.ids_B, Role.STUDENT, 0),
        teacher_keys_B=row_role_keys(rows.keys_B, rows.ids_B, Role.TEACHER, 1),
    )


def progress(state: RolloutState) -> Progress:
    """How far rows are: their student's text, or the text under correction."""
    student, teacher = state.student, state.teacher
    return Progress(
        length_B=jnp.maximum(student.open_B, teacher.open_B),
        written_B=student.length_B - student.origin_B + teacher.length_B - state.start_B,
    )
