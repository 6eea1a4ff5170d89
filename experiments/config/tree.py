"""A config as one frozen tree: a class for each method, of sections that are classes themselves.

`configs/*.py` give data, `--config.field=value` sets them, and `read_config` makes the tree, before
anything is loaded. What comes after takes the tree, or a section of it.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

import atesd
import family
import topd
from distill.losses.signal import Signal
from distill.train.optimizer import OptimizerSettings
from experiments.config.data_sections import DataSets
from experiments.config.method_sections import (
    AnswerContext,
    ExposureSettings,
    PolicySettings,
    RolloutSettings,
    SftSettings,
    SynthesisSettings,
)
from experiments.config.sections import (
    CheckpointSettings,
    EvaluationSettings,
    MeshSettings,
    ProfileSettings,
    PromptSettings,
    SampleSettings,
    StudentSettings,
    TeacherSettings,
    TrackingSettings,
)
from grpo.policy_gradient import GrpoSettings
from models.checks import Count, between
from motab import MotabSettings

# What jax's keys tell apart.
Seed = Annotated[int, between(0, 2**32 - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What every method has.

    Attributes:
      method: what is trained, and how.
      seed: of everything that is random.
      steps: updates.
      batch_size: trajectories, or packed rows of them, of an update.
      stop_after_skipped: so many updates in a row without finite numbers end the run.
      student: the model that is trained.
      teacher: the model that is learnt from.
      mesh: devices along each axis.
      prompt: what both models are asked.
      data: what is trained on, and what is measured.
      optimizer: AdamW and its schedule.
      evaluation: how a model is measured.
      checkpoint: when a run is saved, and validated.
      samples: readable trajectories.
      tracking: who else is told.
      profile: which updates are traced.
    """

    # The section that says how trajectories are written; empty where none are.
    section: ClassVar[str] = ""

    method: str
    seed: Seed
    steps: Count
    batch_size: Count
    stop_after_skipped: Count
    student: StudentSettings
    teacher: TeacherSettings | None = None
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    prompt: PromptSettings
    data: DataSets
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    checkpoint: CheckpointSettings
    samples: SampleSettings
    tracking: TrackingSettings = dataclasses.field(default_factory=TrackingSettings)
    profile: ProfileSettings = dataclasses.field(default_factory=ProfileSettings)

    @property
    def taught_by_itself(self) -> bool:
        """Whether the student before training is the teacher, with weights of its own."""
        return False

    @property
    def teacher_trains(self) -> bool:
        """Whether updates run the teacher on what they train on; elsewhere it only writes."""
        return True

    def lengths(self) -> dict[str, int]:
        """Most tokens of a text, by the fields that say so."""
        prompt, answer = self.prompt.max_tokens, self.evaluation.max_tokens
        return {f"prompt.max_tokens={prompt} and evaluation.max_tokens={answer}": prompt + answer}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(Config):
    """Supervised training.

    Attributes:
      sft: how long references may be.
    """

    sft: SftSettings

    def lengths(self) -> dict[str, int]:
        """Those of references, too."""
        return super().lengths() | {f"sft.max_tokens={self.sft.max_tokens}": self.sft.max_tokens}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """What all rounds of a run's rollouts have in common, whoever writes.

    Attributes:
      seed: of everything that is drawn.
      batch_size: rows of a round.
      slots: rows that are written at the same time; 0 for all.
      max_prompt: most tokens of a prompt.
      max_total: most tokens of a response.
    """

    seed: int
    batch_size: int
    slots: int
    max_prompt: int
    max_total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingConfig(Config):
    """What methods have that train on written trajectories.

    Attributes:
      synthesis: when trajectories are written, and how many.
    """

    synthesis: SynthesisSettings

    @property
    def max_total(self) -> int:
        """Most tokens of a response."""
        return getattr(self, self.section).max_total

    @property
    def rounds(self) -> RoundSettings:
        """What a recipe needs beside its own sections."""
        return RoundSettings(
            seed=self.seed,
            batch_size=self.batch_size,
            slots=self.synthesis.slots,
            max_prompt=self.prompt.max_tokens,
            max_total=self.max_total,
        )

    def writing(self) -> dict[str, Any]:
        """What decides the text of trajectories, by name; `chunk` changes speed alone."""
        fields = dataclasses.asdict(getattr(self, self.section))
        return {name: value for name, value in fields.items() if name != "chunk"}

    def lengths(self) -> dict[str, int]:
        """Those of trajectories, too."""
        prompt, most = self.prompt.max_tokens, self.max_total
        name = f"prompt.max_tokens={prompt} and {self.section}.max_total={most}"
        return super().lengths() | {name: prompt + most}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotabConfig(WritingConfig):
    """MOTAB.

    Attributes:
      motab: how trajectories are monitored, corrected and trained on.
    """

    section: ClassVar[str] = "motab"

    motab: MotabSettings

    @property
    def teacher_trains(self) -> bool:
        """Only the safe part's divergence reads the teacher."""
        return self.motab.safe_loss != "likelihood"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationConfig(WritingConfig):
    """The published baselines.

    Attributes:
      rollout: who writes the text, and what it trains for.
      signal: the divergence to the teacher, where `rollout.loss` asks for one.
    """

    section: ClassVar[str] = "rollout"

    rollout: PolicySettings
    signal: Signal | None = None

    @property
    def teacher_trains(self) -> bool:
        """Likelihood needs none."""
        return self.signal is not None

    def writing(self) -> dict[str, Any]:
        """What the policy reads."""
        return {name: x for name, x in self.rollout.read().items() if name != "chunk"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpoConfig(WritingConfig):
    """GRPO.

    Attributes:
      grpo: the rollout, and the clipped surrogate.
    """

    section: ClassVar[str] = "grpo"

    grpo: GrpoSettings

    @property
    def taught_by_itself(self) -> bool:
        """Where there is a penalty, and no teacher to be its reference."""
        return self.teacher is None and self.grpo.kl_weight > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtesdConfig(WritingConfig):
    """ATESD and OPSD.

    Attributes:
      rollout: how the student writes.
      exposure: what the teacher reads.
      exposed: whose weights the teacher has.
      loss: what pulls the student towards the teacher.
      controller: who decides how much of the reference is seen.
    """

    section: ClassVar[str] = "rollout"

    rollout: RolloutSettings
    exposure: ExposureSettings
    exposed: atesd.TeacherSettings
    loss: atesd.LossSettings
    controller: atesd.ControllerSettings

    @property
    def taught_by_itself(self) -> bool:
        """Where the teacher's weights are the student's initial ones."""
        return self.teacher is None and self.exposed.weights == "frozen"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopdConfig(WritingConfig):
    """TOPD.

    Attributes:
      rollout: how the student writes.
      signal: the OPD loss.
      windows: where windows open, and how they are written.
      transport: how far two windows are apart.
      guidance: what windows do to the loss.
    """

    section: ClassVar[str] = "rollout"

    rollout: RolloutSettings
    signal: Signal
    windows: topd.WindowSettings
    transport: topd.TransportSettings
    guidance: topd.GuidanceSettings

    def lengths(self) -> dict[str, int]:
        """With a window behind the last token."""
        prompt, most, window = self.prompt.max_tokens, self.max_total, self.windows.tokens
        name = f"prompt.max_tokens={prompt}, rollout.max_total={most} and windows.tokens={window}"
        return super().lengths() | {name: prompt + most + window}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedConfig(WritingConfig):
    """A method of the family: a plan in one loss.

    Attributes:
      rollout: how the student writes.
      surrogate: what the plan is put into.
      context: what the teacher reads, where it is the student itself.
      plan: the method's own settings.
    """

    section: ClassVar[str] = "rollout"

    rollout: RolloutSettings
    surrogate: family.SurrogateSettings
    context: AnswerContext | None = None
    plan: Any

    @property
    def point(self) -> family.Method:
        """The plan, and what it reads."""
        return family.METHODS[self.method]

    def lengths(self) -> dict[str, int]:
        """Those of responses behind the teacher's context, too."""
        if self.context is None:
            return super().lengths()
        context, most = self.context.max_tokens, self.max_total
        name = f"context.max_tokens={context} and rollout.max_total={most}"
        return super().lengths() | {name: context + most}


def _planned(name: str, method: family.Method) -> type[PlannedConfig]:
    """The class of one of the family's methods, whose plan has settings of its own."""
    plan = ("plan", method.settings, dataclasses.field())
    bases = (PlannedConfig,)
    made = dataclasses.make_dataclass(name, [plan], bases=bases, frozen=True, kw_only=True)
    return made


# What `method` may be. A new method adds its class here.
METHODS: dict[str, type[Config]] = {
    **{name: _planned(name, method) for name, method in family.METHODS.items()},
    "motab": MotabConfig,
    "distillation": DistillationConfig,
    "grpo": GrpoConfig,
    "atesd": AtesdConfig,
    "topd": TopdConfig,
    "sft": SftConfig,
}
