"""Who writes the text: `config.rollout`, checked, and the rollouts it may ask for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from distill.roles import Role
from distill.rollouts.one_writer import make_slots
from distill.steps.table import make_step_table
from distill.trajectories import Source, Trajectories
from experiments.pair.pair import Pair
from mixtures.mixing import mix
from mixtures.policies import SKD, ImitKD
from mixtures.rollout import StepRolloutSettings, make_step_slots
from models.decoding.sampling import Sampling
from models.decoding.slots import Slots, run, whole_batch
from models.parameters import Params
from models.text.tokenizer import token_bytes

# (student_params, teacher_params, prompts, lengths, sample_ids, key) to trajectories and [B] arrays.
PolicyRollout = Callable[..., tuple[Trajectories, dict[str, jax.Array]]]

LOSSES = ("likelihood", "divergence")
_STEPS = (
    "student_temperature", "teacher_temperature", "delimiter", "max_step_tokens", "chunk",
)  # fmt: skip
# What each policy reads besides `policy`, `loss` and `max_total`.
FIELDS: dict[str, tuple[str, ...]] = {
    "student": ("student_temperature", "student_top_p"),
    "teacher": ("teacher_temperature",),
    "rft": ("student_temperature",),
    "gkd": ("on_policy_share", "student_temperature", "student_top_p", "teacher_temperature"),
    "imitkd": ("teacher_share", *_STEPS),
    "skd": ("skd_beta", *_STEPS),
}
STUDENT, TEACHER = (Source.STUDENT,), (Source.TEACHER,)
SOURCES = {"student": STUDENT, "rft": STUDENT, "teacher": TEACHER}
# Policies of one mode, and why the other makes no sense.
_STALE = "the text of the initial weights is off-policy after the first update"
MODES = {
    "student": ("online", _STALE),
    "gkd": ("online", _STALE),
    "rft": ("offline", "answers are graded once, on the host, when the file is written"),
}


def check_rollout(rollout: Mapping[str, Any]) -> None:
    """Refuses fields that a policy lacks or does not read, and values out of range.

    Raises:
      ValueError: names the field.
    """
    policy = rollout.get("policy")
    if policy not in FIELDS:
        raise ValueError(f"rollout.policy={policy!r}: choose one of {tuple(FIELDS)}.")
    wanted = ("policy", "loss", "max_total", *FIELDS[policy])
    for name in wanted:
        if name not in rollout:
            raise ValueError(f"rollout.{name} is missing: rollout.policy={policy!r} reads it.")
    for name in rollout:
        if name not in wanted:
            raise ValueError(
                f"rollout.{name}: rollout.policy={policy!r} does not read it. Remove it; the "
                f"fields are {', '.join(wanted)}."
            )
    if rollout["loss"] not in LOSSES:
        raise ValueError(f"rollout.loss={rollout['loss']!r}: choose one of {LOSSES}.")
    for name, low, high in (
        ("max_total", 1, None),
        ("max_step_tokens", 1, None),
        ("chunk", 1, None),
        ("student_temperature", 0, None),
        ("teacher_temperature", 0, None),
        ("skd_beta", 0, None),
        ("teacher_share", 0, 1),
        ("on_policy_share", 0, 1),
        ("student_top_p", 0, 1),
    ):
        if name in rollout and not low <= rollout[name] <= (float("inf") if high is None else high):
            bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
            raise ValueError(f"rollout.{name}={rollout[name]} must be {bounds}.")
    if rollout.get("delimiter") == "":
        raise ValueError("rollout.delimiter is empty; give the text that ends a step.")
    if policy in ("student", "gkd") and rollout["loss"] == "likelihood":
        raise ValueError(
            f"rollout.loss='likelihood' with rollout.policy={policy!r}: the likelihood of the "
            "student's own samples has zero gradient in expectation. Use rollout.loss='divergence', "
            "or rollout.policy='rft', which keeps the correct ones."
        )


def check_mode(policy: str, mode: str) -> None:
    """Refuses a `synthesis.mode` that a policy cannot have.

    Raises:
      ValueError: names the field and the reason.
    """
    only, reason = MODES.get(policy, (mode, ""))
    if mode != only:
        raise ValueError(
            f"synthesis.mode={mode!r} with rollout.policy={policy!r}: {reason}. Use {only!r}."
        )


def make_policy(rollout: Mapping[str, Any], pair: Pair) -> tuple[PolicyRollout, tuple[Slots, ...]]:
    """The rollout of a checked `config.rollout`, and the same in parts.

    Its record are arrays [B] by name, `truncated` among them. GKD's parts are two, the student's
    and the teacher's: of each row a coin takes one (`mixtures.mixing.on_policy_rows`).
    """
    policy = rollout["policy"]
    if policy in ("imitkd", "skd"):
        slots = _stepwise(rollout, pair)
        return functools.partial(write, slots), (slots,)

    def one(role: Role) -> Slots:
        config = pair.student_config if role == Role.STUDENT else pair.teacher_config
        assert config is not None
        name = role.name.lower()
        sampling = Sampling(rollout[f"{name}_temperature"], top_p=rollout.get(f"{name}_top_p", 1.0))
        writing = make_slots(
            config, sampling, rollout["max_total"], pair.eos_ids, role, pair.vocab_size,
            rollout["loss"],
        )  # fmt: skip
        return one_writer(writing, role, pair.eos_ids)

    share = {"student": 1.0, "rft": 1.0, "teacher": 0.0}.get(policy)
    share = rollout["on_policy_share"] if share is None else share
    # Nobody writes what is sure to be left out.
    if share in (0, 1):
        slots = one(Role.STUDENT if share else Role.TEACHER)
        return functools.partial(write, slots), (slots,)
    by_student, by_teacher = one(Role.STUDENT), one(Role.TEACHER)

    def both(student_params, teacher_params, prompts, lengths, sample_ids, key):
        inputs = student_params, teacher_params, prompts, lengths, sample_ids, key
        own, data = write(by_student, *inputs)[0], write(by_teacher, *inputs)[0]
        mixed = mix(own, data, share, key, sample_ids)
        return mixed, {"truncated": truncated(mixed, pair.eos_ids)}

    return both, (by_student, by_teacher)


def one_writer(writing: Slots, role: Role, eos_ids: tuple[int, ...]) -> Slots:
    """Slots of one model as a recipe has them: it takes both models' parameters and gives a record."""

    def finish(state: Any) -> tuple[Trajectories, dict[str, jax.Array]]:
        trajectories = writing.finish(state)
        return trajectories, {"truncated": truncated(trajectories, eos_ids)}

    return dataclasses.replace(
        writing, prepare=lambda params: writing.prepare(params[role]), finish=finish
    )


def write(
    slots: Slots,
    student_params: Params,
    teacher_params: Params | None,
    prompts: jax.Array,
    prompt_lengths: jax.Array,
    sample_ids: jax.Array,
    key: jax.Array,
) -> tuple[Trajectories, Any]:
    """A whole batch, until its last row is done. Pure."""
    rows = whole_batch(slots, prompts, prompt_lengths, key, sample_ids)
    return run(slots, (student_params, teacher_params), rows)


def _stepwise(rollout: Mapping[str, Any], pair: Pair) -> Slots:
    assert pair.teacher_config is not None
    settings = StepRolloutSettings(
        student_temperature=rollout["student_temperature"],
        teacher_temperature=rollout["teacher_temperature"],
        max_step_tokens=rollout["max_step_tokens"],
        max_total=rollout["max_total"],
        train=rollout["loss"],
        chunk=rollout["chunk"],
    )
    skd = rollout["policy"] == "skd"
    in_turns = make_step_slots(
        pair.student_config,
        pair.teacher_config,
        SKD(rollout["skd_beta"]) if skd else ImitKD(rollout["teacher_share"]),
        settings,
        make_step_table(
            token_bytes(pair.tokenizer, pair.student_config.vocab_size), rollout["delimiter"]
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
