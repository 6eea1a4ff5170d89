"""Who writes the text: the rollouts that a config may ask for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill.roles import Role
from distill.rollouts.one_writer import make_slots
from distill.steps.table import make_step_table
from distill.trajectories import Source, Trajectories
from experiments.config.method_sections import PolicySettings
from experiments.pair.pair import Pair
from mixtures.mixing import mix
from mixtures.policies import SKD, ImitKD
from mixtures.rollout import StepRolloutSettings, make_step_slots
from models.decoding.slots import Slots, run, whole_batch
from models.parameters import Params
from models.text.tokenizer import token_bytes

# (student_params, teacher_params, prompts, lengths, sample_ids, key) to trajectories and [B]
# arrays.
PolicyRollout = Callable[..., tuple[Trajectories, dict[str, jax.Array]]]

STUDENT, TEACHER = (Source.STUDENT,), (Source.TEACHER,)
SOURCES = {"student": STUDENT, "rft": STUDENT, "teacher": TEACHER}


def make_policy(rollout: PolicySettings, pair: Pair) -> tuple[PolicyRollout, tuple[Slots, ...]]:
    """The rollout that `rollout` describes, and the same in parts.

    Its record are arrays [B] by name, `truncated` among them. GKD's parts are two, the student's
    and the teacher's: of each row a coin takes one (`mixtures.mixing.on_policy_rows`).
    """
    policy = rollout.policy
    if policy in ("imitkd", "skd"):
        slots = _stepwise(rollout, pair)
        return functools.partial(run_batch, slots), (slots,)

    def one(role: Role) -> Slots:
        config = pair.student_config if role == Role.STUDENT else pair.teacher_config
        assert config is not None
        writing = make_slots(
            config,
            rollout.student_sampling if role == Role.STUDENT else rollout.teacher_sampling,
            rollout.max_total,
            pair.eos_ids,
            role,
            pair.vocab_size,
            rollout.loss,
        )
        return recorded(writing, role, pair.eos_ids)

    share = {"student": 1.0, "rft": 1.0, "teacher": 0.0}.get(policy)
    share = rollout.on_policy_share if share is None else share
    # Nobody writes what is sure to be left out.
    if share in (0, 1):
        slots = one(Role.STUDENT if share else Role.TEACHER)
        return functools.partial(run_batch, slots), (slots,)
    by_student, by_teacher = one(Role.STUDENT), one(Role.TEACHER)

    def both(student_params, teacher_params, prompts, lengths, sample_ids, key):
        inputs = student_params, teacher_params, prompts, lengths, sample_ids, key
        own, data = run_batch(by_student, *inputs)[0], run_batch(by_teacher, *inputs)[0]
        mixed = mix(own, data, share, key, sample_ids)
        return mixed, {"truncated": truncated(mixed, pair.eos_ids)}

    return both, (by_student, by_teacher)


def recorded(writing: Slots, role: Role, eos_ids: tuple[int, ...]) -> Slots:
    """Slots of one model for a recipe: they take both models' parameters and give a record."""

    def finish(state: Any) -> tuple[Trajectories, dict[str, jax.Array]]:
        trajectories = writing.finish(state)
        return trajectories, {"truncated": truncated(trajectories, eos_ids)}

    return dataclasses.replace(
        writing, prepare=lambda params: writing.prepare(params[role]), finish=finish
    )


def run_batch(
    slots: Slots,
    student_params: Params,
    teacher_params: Params | None,
    prompts: jax.Array,
    prompt_lengths: jax.Array,
    sample_ids: jax.Array,
    key: jax.Array,
) -> tuple[Trajectories, Any]:
    """The rollout of a whole batch, until its last row is done. Pure."""
    rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
    return run(slots, (student_params, teacher_params), rows)


def _stepwise(rollout: PolicySettings, pair: Pair) -> Slots:
    assert pair.teacher_config is not None
    settings = StepRolloutSettings(
        student_temperature=rollout.student_temperature,
        teacher_temperature=rollout.teacher_temperature,
        max_step_tokens=rollout.max_step_tokens,
        max_total=rollout.max_total,
        train=rollout.loss,
        chunk=rollout.chunk,
    )
    skd = rollout.policy == "skd"
    in_turns = make_step_slots(
        pair.student_config,
        pair.teacher_config,
        SKD(rollout.skd_beta) if skd else ImitKD(rollout.teacher_share),
        settings,
        make_step_table(
            token_bytes(pair.tokenizer, pair.student_config.vocab_size), rollout.delimiter
        ),
        pair.eos_ids,
        pair.vocab_size,
    )

    def finish(state: Any) -> tuple[Trajectories, dict[str, jax.Array]]:
        trajectories, record = in_turns.finish(state)
        counts = {"accepted": record.student_steps_B, "rejected": record.rejected_B}
        ends = {"truncated": truncated(trajectories, pair.eos_ids)}
        return trajectories, {**counts, **ends} if skd else ends

    return dataclasses.replace(in_turns, finish=finish)


def truncated(trajectories: Trajectories, eos_ids: tuple[int, ...]) -> jax.Array:
    """Rows [B] whose text ran out of budget: those without an end of sequence."""
    response = trajectories.source_BxT > Source.PROMPT
    ends = jnp.isin(trajectories.tokens_BxT, jnp.asarray(eos_ids)) & response
    return ~jnp.any(ends, axis=1)
