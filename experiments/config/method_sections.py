"""Sections that methods have of their own, where the method's room does not define them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import atesd
from atesd.prompts import DEFAULT_TEMPLATE, check_template
from experiments.config.sections import NonNegative, Thinking, TopP
from models.checks import Count, Share, Temperature, at_least, check, one_of
from models.decoding.sampling import Sampling

# A name for the template that OPSD's paper describes.
OPSD = "opsd"
Unit = Annotated[str, one_of("sentence", "token")]


@dataclasses.dataclass(frozen=True)
class SynthesisSettings:
    """When trajectories are written, and how many.

    Attributes:
      mode: `online`, fresh ones at every update; or `offline`, once, and then epochs over the file.
      trajectories_per_prompt: how many are written to a prompt.
      sync_every: online: updates between two refreshes of the weights that write.
      slots: trajectories written at the same time; 0 for a batch. Changes speed, not results.
      trajectories: offline: how many to write in all.
      file: offline: a file of `experiments.synthesize`; empty for one of the run's own.
      pack_to: offline: tokens of a row that trajectories are packed into; 0 for a row each.
      cache_teacher: offline: whether the teacher's scores are computed once and kept.
    """

    mode: Annotated[str, one_of("online", "offline")]
    trajectories_per_prompt: Count = 1
    sync_every: Count = 1
    slots: Annotated[int, at_least(0, "a batch")] = 0
    trajectories: NonNegative = 0
    file: str = ""
    pack_to: Annotated[int, at_least(0, "off")] = 0
    cache_teacher: bool = False

    def __post_init__(self):
        check(self, "synthesis")


@dataclasses.dataclass(frozen=True)
class SftSettings:
    """Supervised training on references.

    Attributes:
      max_tokens: most tokens of prompt and reference together.
      shuffle: whether an epoch has an order of its own.
      overlong: what is longer is an `error`, or is left out (`drop`).
    """

    max_tokens: Count
    shuffle: bool = True
    overlong: Annotated[str, one_of("error", "drop")] = "error"

    def __post_init__(self):
        check(self, "sft")


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How the student writes alone.

    Attributes:
      student_temperature: of sampling; 0 is greedy.
      student_top_p: tokens are drawn from the likeliest ones that hold this share of probability.
      student_top_k: tokens are drawn from so many of the likeliest; 0 for all.
      max_total: most tokens of a response.
    """

    student_temperature: Temperature
    student_top_p: TopP
    student_top_k: Annotated[int, at_least(0, "off")]
    max_total: Count

    def __post_init__(self):
        check(self, "rollout")

    @property
    def sampling(self) -> Sampling:
        """Without a bound on the vocabulary."""
        return Sampling(self.student_temperature, self.student_top_p, self.student_top_k)


_STEPS = ("student_temperature", "teacher_temperature", "delimiter", "max_step_tokens", "chunk")
# What each policy reads besides `policy`, `loss` and `max_total`.
POLICY_FIELDS: dict[str, tuple[str, ...]] = {
    "student": ("student_temperature", "student_top_p"),
    "teacher": ("teacher_temperature",),
    "rft": ("student_temperature",),
    "gkd": ("on_policy_share", "student_temperature", "student_top_p", "teacher_temperature"),
    "imitkd": ("teacher_share", *_STEPS),
    "skd": ("skd_beta", *_STEPS),
}


@dataclasses.dataclass(frozen=True)
class PolicySettings:
    """Who writes the text. A config gives the fields that its policy reads, and no others.

    Attributes:
      policy: who writes: `student`, `teacher`, `rft`, `gkd`, `imitkd` or `skd`.
      loss: what response tokens train for: `likelihood`, or the `divergence` that `signal` says.
      max_total: most tokens of a response.
      student_temperature: of the student's sampling; 0 is greedy.
      student_top_p: the student's tokens come from the likeliest ones that hold this share.
      teacher_temperature: of the teacher's sampling; 0 is greedy.
      on_policy_share: GKD's lambda: share of samples that the student writes.
      teacher_share: ImitKD's share of steps that the teacher writes.
      skd_beta: SKD's beta: a step stands if pbar_T > beta pbar_S.
      delimiter: text that ends a step.
      max_step_tokens: a step that reaches it closes.
      chunk: tokens of a turn; changes speed, not results.
    """

    policy: Annotated[str, one_of(*POLICY_FIELDS)]
    loss: Annotated[str, one_of("likelihood", "divergence")]
    max_total: Count
    student_temperature: Temperature = 1.0
    student_top_p: TopP = 1.0
    teacher_temperature: Temperature = 1.0
    on_policy_share: Share = 0.5
    teacher_share: Share = 0.5
    skd_beta: Annotated[float, at_least(0)] = 1.0
    delimiter: str = ".\n\n"
    max_step_tokens: Count = 32
    chunk: Count = 16

    @classmethod
    def check_given(cls, given: Mapping[str, Any], path: str) -> None:
        """Refuses fields that a policy lacks or does not read."""
        policy = given.get("policy")
        if policy not in tuple(POLICY_FIELDS):
            raise ValueError(f"{path}.policy={policy!r}: choose one of {tuple(POLICY_FIELDS)}.")
        wanted = cls.fields_of(policy)
        for name in wanted:
            if name not in given:
                raise ValueError(f"{path}.{name} is missing: {path}.policy={policy!r} reads it.")
        for name in given:
            if name not in wanted:
                raise ValueError(
                    f"{path}.{name}: {path}.policy={policy!r} does not read it. Remove it; the "
                    f"fields are {', '.join(wanted)}."
                )

    def __post_init__(self):
        check(self, "rollout")
        if not self.delimiter:
            raise ValueError("rollout.delimiter is empty; give the text that ends a step.")
        if self.policy in ("student", "gkd") and self.loss == "likelihood":
            raise ValueError(
                f"rollout.loss='likelihood' with rollout.policy={self.policy!r}: the likelihood of "
                "the student's own samples has zero gradient in expectation. Use "
                "rollout.loss='divergence', or rollout.policy='rft', which keeps the correct ones."
            )

    @staticmethod
    def fields_of(policy: str) -> tuple[str, ...]:
        """The fields that a policy reads."""
        return ("policy", "loss", "max_total", *POLICY_FIELDS[policy])

    @property
    def student_sampling(self) -> Sampling:
        """Without a bound on the vocabulary."""
        return Sampling(self.student_temperature, top_p=self.student_top_p)

    @property
    def teacher_sampling(self) -> Sampling:
        """Without a bound on the vocabulary."""
        return Sampling(self.teacher_temperature)

    def read(self) -> dict[str, Any]:
        """The fields that the policy reads, by name."""
        return {name: getattr(self, name) for name in self.fields_of(self.policy)}


@dataclasses.dataclass(frozen=True)
class AnswerContext:
    """What the student reads as its own teacher, some updates ago: problem and answer.

    Attributes:
      template: the user's message, with `{problem}` and `{answer}` once each or more.
      max_tokens: most tokens of the context.
      sync_every: updates between two refreshes of the teacher's weights.
    """

    template: str
    max_tokens: Count
    sync_every: Count = 10

    def __post_init__(self):
        check(self, "context")
        for name in ("{problem}", "{answer}"):
            if name not in self.template:
                raise ValueError(f"context.template={self.template!r} does not contain {name!r}.")

    def message(self, problem: str, answer: str) -> str:
        """The message for one problem."""
        pieces = self.template.split("{answer}")  # a problem may hold braces of its own
        return answer.join(piece.replace("{problem}", problem) for piece in pieces)


@dataclasses.dataclass(frozen=True)
class ExposureSettings:
    """What the teacher reads.

    Attributes:
      template: the user's message, with `{reference}` once and `{problem}` at least once; or `opsd`
        for `atesd.prompts.DEFAULT_TEMPLATE`.
      unit: where the reasoning may be cut: behind a `sentence`, or behind any `token`.
      thinking: the chat template's switch in the teacher's context: `default`, `on` or `off`.
      max_head: most tokens of the context before the reference's reasoning.
      max_reasoning: most tokens of the reasoning.
      max_answer: most tokens of the answer.
      max_tail: most tokens behind the answer.
      probe_size: held-out problems of the probe batch, the first of `data.validation`; 0 for none,
        where no policy learns.
    """

    template: str
    unit: Unit
    thinking: Thinking
    max_head: Count
    max_reasoning: Count
    max_answer: Count
    max_tail: Count
    probe_size: Annotated[int, at_least(0, "none")]

    def __post_init__(self):
        check(self, "exposure")
        check_template(self.message)

    @property
    def message(self) -> str:
        """The user's message, whatever it is called."""
        return DEFAULT_TEMPLATE if self.template == OPSD else self.template

    @property
    def widths(self) -> atesd.ReferenceWidths:
        """Of the pieces of a context."""
        return atesd.ReferenceWidths(
            self.max_head, self.max_reasoning, self.max_answer, self.max_tail
        )
