"""What fields must be to one another, looked at before anything is loaded.

What a field may be by itself is said where it is declared; what models and data say is looked at
when their own files are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from distill.losses.signal import Signal
from experiments.config.tree import (
    AtesdConfig,
    Config,
    DistillationConfig,
    GrpoConfig,
    MotabConfig,
    PlannedConfig,
    TopdConfig,
    WritingConfig,
)

# Policies of one mode, and why the other makes no sense.
_STALE = "the text of the initial weights is off-policy after the first update"
_POLICY_MODES = {
    "student": ("online", _STALE),
    "gkd": ("online", _STALE),
    "rft": ("offline", "answers are graded once, on the host, when the file is written"),
}


def check_config(config: Config) -> None:
    """Raises where fields do not go together.

    Raises:
      ValueError: names the fields.
    """
    parts = config.optimizer.micro_batches
    if config.batch_size % parts:
        raise ValueError(
            f"optimizer.micro_batches={parts} does not divide batch_size={config.batch_size}: the "
            "parts of a batch are equal."
        )
    for kind, check in _OWN.items():
        if isinstance(config, kind):
            check(config)
    if isinstance(config, WritingConfig):
        _check_synthesis(config)


def _check_synthesis(config: WritingConfig) -> None:
    s, batch = config.synthesis, config.batch_size
    copies, online = s.trajectories_per_prompt, s.mode == "online"
    if online and batch % copies:
        raise ValueError(
            f"batch_size={batch} is not a multiple of synthesis.trajectories_per_prompt={copies}."
        )
    if online and s.sync_every > 1 and s.sync_every >= config.steps:
        raise ValueError(
            f"synthesis.sync_every={s.sync_every} with steps={config.steps}: the weights that "
            "write would never be refreshed. Lower it, or use synthesis.mode='offline'."
        )
    if not online and not s.file and s.trajectories < (round_ := _round(batch, copies)):
        raise ValueError(
            f"synthesis.trajectories={s.trajectories} is less than one round of {round_}."
        )
    keeps = config.method == "lightning" or getattr(config, "signal", None) is not None
    if s.cache_teacher and (isinstance(config, TopdConfig) or not keeps):
        raise ValueError(
            "synthesis.cache_teacher=True, but the loss asks the teacher nothing that could be "
            "kept. Set it to False."
        )


def _round(batch_size: int, copies: int) -> int:
    """Trajectories of a round of synthesis: whole prompts, and a batch where those make it up."""
    return copies if batch_size % copies else batch_size


def _check_motab(config: MotabConfig) -> None:
    _needs_teacher(config, "method='motab'")


def _check_distillation(config: DistillationConfig) -> None:
    rollout, s = config.rollout, config.synthesis
    only, reason = _POLICY_MODES.get(rollout.policy, (s.mode, ""))
    if s.mode != only:
        raise ValueError(
            f"synthesis.mode={s.mode!r} with rollout.policy={rollout.policy!r}: {reason}. Use "
            f"{only!r}."
        )
    if rollout.loss == "likelihood" and config.signal is not None:
        raise ValueError(
            "signal: rollout.loss='likelihood' reads no divergence. Remove the section, or set "
            "rollout.loss='divergence'."
        )
    if rollout.loss == "divergence" and config.signal is None:
        raise ValueError(
            "signal is missing: rollout.loss='divergence' reads the fields of distill.Signal."
        )
    if config.signal is not None or rollout.policy != "rft":
        _needs_teacher(
            config, f"rollout.policy={rollout.policy!r} with rollout.loss={rollout.loss!r}"
        )
    if config.signal is not None:
        read = rollout.read()
        _check_sampled(
            config.signal,
            [
                ("synthesis.mode", s.mode, ("online",), "initial weights wrote the tokens"),
                (
                    "rollout.policy",
                    rollout.policy,
                    ("student", "gkd"),
                    "others wrote some of the tokens",
                ),
                (
                    "rollout.on_policy_share",
                    read.get("on_policy_share", 1.0),
                    (1.0,),
                    "the teacher wrote some of the tokens",
                ),
                *_own_distribution(read, s.sync_every),
            ],
        )


def _check_grpo(config: GrpoConfig) -> None:
    s = config.synthesis
    if s.mode != "online":
        raise ValueError(
            f"synthesis.mode={s.mode!r} with method='grpo': the surrogate holds near the weights "
            "that wrote the text. Use 'online'."
        )
    if s.trajectories_per_prompt < 2:
        raise ValueError(
            f"synthesis.trajectories_per_prompt={s.trajectories_per_prompt} with method='grpo': a "
            "reward is relative to those of other responses to the prompt. Use 2 or more."
        )


def _check_atesd(config: AtesdConfig) -> None:
    _needs_online(config)
    weights, size = config.exposed.weights, config.exposure.probe_size
    if config.teacher is not None and weights != "frozen":
        raise ValueError(
            f"exposed.weights={weights!r} with a teacher section: the teacher has "
            "the student's own weights and nothing reads the other model. Remove the section, "
            "or use 'frozen'."
        )
    if not size and config.controller.policy == "learned":
        raise ValueError(
            "exposure.probe_size=0 with controller.policy='learned': the policy sees the "
            "student's NLL of the probe's references. Use for example 32."
        )
    if size and "validation" not in config.data.measured():
        raise ValueError(
            "data.validation.name is empty: the probe batch is made of held-out problems. Name "
            "a data set."
        )


def _check_topd(config: TopdConfig) -> None:
    _needs_online(config)
    _needs_teacher(config, "method='topd'")
    windows, guidance, rollout = config.windows, config.guidance, config.rollout
    rows = windows.low_rows or config.batch_size
    if guidance.needs_low_losses and min(rows, config.batch_size) > guidance.buffer:
        raise ValueError(
            f"guidance.buffer={guidance.buffer} holds fewer distances than the {rows} rows of a "
            "batch add. Raise it, or lower windows.low_rows."
        )
    if windows.per_rollout > rollout.max_total:
        raise ValueError(
            f"windows.per_rollout={windows.per_rollout} with "
            f"rollout.max_total={rollout.max_total}: there are more windows than positions. Lower "
            "it."
        )
    read = {
        "student_temperature": rollout.student_temperature,
        "student_top_p": rollout.student_top_p,
        "student_top_k": rollout.student_top_k,
    }
    _check_sampled(config.signal, _own_distribution(read, config.synthesis.sync_every))


def _check_planned(config: PlannedConfig) -> None:
    point, s, what = config.point, config.synthesis, f"method={config.method!r}"
    if config.method == "lightning":
        if s.mode != "offline" or not s.cache_teacher:
            raise ValueError(
                f"synthesis.mode={s.mode!r} and synthesis.cache_teacher={s.cache_teacher} with "
                f"{what}: its text and the teacher's scores are kept. Use 'offline' and True, or "
                "configs/opd.py."
            )
    else:
        _needs_online(config)
    if point.rewarded and s.trajectories_per_prompt < 2:
        raise ValueError(
            f"synthesis.trajectories_per_prompt={s.trajectories_per_prompt} with {what}: a reward "
            "is relative to those of other responses to the prompt. Use 2 or more."
        )
    if point.exposed != (config.context is not None):
        raise ValueError(
            f"context is missing: with {what} it says what the teacher reads."
            if point.exposed
            else f"context: with {what} the teacher reads the student's prompt. Remove the section."
        )
    if point.taught and not point.exposed:
        _needs_teacher(config, what)
    elif config.teacher is not None:
        raise ValueError(
            f"teacher: {what} "
            + ("has the student itself as its teacher." if point.exposed else "reads no teacher.")
            + " Remove the section."
        )
    if config.method != "lightning":
        _check_ratio(config, what)


def _check_ratio(config: PlannedConfig, what: str) -> None:
    """Ratios are those of the student's own distribution; what has none asks for fresh text."""
    read, lag = dataclasses.asdict(config.rollout), config.synthesis.sync_every
    for name, value, allowed, reason in _own_distribution(read, lag):
        if value not in allowed and name != "synthesis.sync_every":
            raise ValueError(
                f"{name}={value!r} with {what}: {reason}, while ratios and gradients are those of "
                f"the whole distribution at temperature 1. Set it to {allowed[0]!r}."
            )
    if lag > 1 and (config.method == "sdar" or getattr(config.plan, "form", "") == "loss"):
        raise ValueError(
            f"synthesis.sync_every={lag} with {what}: the pull towards the teacher stands beside "
            "the surrogate and has no ratio, so that the text must be the current weights'. Set it "
            f"to 1{' or use plan.form=advantage' if config.method == 'kdrl' else ''}."
        )


Asked = tuple[str, Any, tuple[Any, ...], str]


def _own_distribution(rollout: dict[str, Any], sync_every: int) -> Iterator[Asked]:
    """What must be so that tokens come from the student's current, unfiltered distribution."""
    tempered = "the tokens are drawn from a tempered distribution"
    filtered = "the tokens are drawn from a filtered distribution"
    yield "rollout.student_temperature", rollout.get("student_temperature"), (1.0,), tempered
    yield "rollout.student_top_p", rollout.get("student_top_p"), (1.0,), filtered
    yield "rollout.student_top_k", rollout.get("student_top_k", 0), (0,), filtered
    yield "synthesis.sync_every", sync_every, (1,), "older weights drew the tokens"


def _check_sampled(signal: Signal, asked: Iterator[Asked] | list[Asked]) -> None:
    """A sampled token's gradient is right in expectation over the student's own distribution."""
    if signal.support != "sampled":
        return
    for name, value, allowed, reason in asked:
        if value not in allowed:
            raise ValueError(
                f"{name}={value!r} with signal.support='sampled': {reason}, and the gradient at a "
                "sampled token is the divergence's only in expectation over the student's current, "
                f"unfiltered distribution. Set it to {' or '.join(map(repr, allowed))}, or use "
                "signal.support='full' or 'top_k'."
            )


def _needs_online(config: WritingConfig) -> None:
    if config.synthesis.mode != "online":
        raise ValueError(
            f"synthesis.mode={config.synthesis.mode!r} with method={config.method!r}: it distils "
            "on the student's own fresh rollouts. Use 'online'."
        )


def _needs_teacher(config: Config, what: str) -> None:
    if config.teacher is None:
        raise ValueError(f"{what} needs a teacher: set teacher.path.")


_OWN: dict[type[Config], Callable[[Any], None]] = {
    MotabConfig: _check_motab,
    DistillationConfig: _check_distillation,
    GrpoConfig: _check_grpo,
    AtesdConfig: _check_atesd,
    TopdConfig: _check_topd,
    PlannedConfig: _check_planned,
}
