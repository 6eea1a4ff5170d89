"""Sections that every method has: models, mesh, prompts, evaluation, checkpoints, who is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from experiments.text.final_answer import MODES
from models.checks import Count, Temperature, above, at_least, between, check, one_of
from models.config import ATTENTION_KERNELS, LORA_TARGETS, REMAT_POLICIES, LoraConfig, ModelConfig
from models.dtypes import DTYPES
from models.sharding import AXES, DEFAULT_RULES, Rules
from models.text.chat import THINKING

Thinking = Annotated[str, one_of(*THINKING)]
Dtype = Annotated[str, one_of(*DTYPES)]
Kernel = Annotated[str, one_of(*ATTENTION_KERNELS)]
NonNegative = Annotated[int, at_least(0)]
TopP = Annotated[float, between(0, 1, "(]")]


# Fields of a `ModelConfig` that other parts of a config say.
NO_ARCHITECTURE = ("dtype", "remat", "attention", "rules", "lora", "mesh")


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """Which mesh axes split an axis of parameters and activations; an empty list keeps it whole.

    Attributes:
      embed: mesh axes that split the residual stream's width in parameters.
      vocab: mesh axes that split the vocabulary.
      heads: mesh axes that split the query heads.
      kv_heads: mesh axes that split the key and value heads.
      mlp: mesh axes that split the MLP's width.
    """

    embed: tuple[str, ...] = ("fsdp",)
    vocab: tuple[str, ...] = ("tensor",)
    heads: tuple[str, ...] = ("tensor",)
    kv_heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)

    def __post_init__(self):
        self.table("rules")

    def table(self, where: str) -> Rules:
        """The rules as models take them; `where` is what an error calls the section.

        The batch's rule is not among the fields: both models of a pair read the same rows.
        """
        table = dict(DEFAULT_RULES)
        for name, axes in dataclasses.asdict(self).items():
            if isinstance(axes, str) or any(axis not in AXES for axis in axes):
                raise ValueError(f"{where}.{name}={axes!r}: list some of the mesh axes {AXES}.")
            if len(set(axes)) < len(axes):
                raise ValueError(f"{where}.{name}={tuple(axes)}: a mesh axis is named twice.")
            table[name] = tuple(axes)
        return tuple(table.items())


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters, which alone train: x W + (alpha / rank) x A B.

    Attributes:
      rank: columns of A and rows of B; 0 trains everything and has no adapters.
      alpha: the adapters' weight, times `rank`.
      targets: which matrices of every layer have adapters.
    """

    rank: Annotated[int, at_least(0, "no adapters")]
    alpha: Annotated[float, above(0)]
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self):
        check(self, "lora")
        if self.rank:
            self.architecture()

    def architecture(self) -> LoraConfig | None:
        """As models take them; None for rank 0."""
        return LoraConfig(self.rank, self.alpha, self.targets) if self.rank else None


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """The model that is trained.

    Attributes:
      path: its directory, or `embedded:NAME`.
      tokenizer: of a student that starts from random weights: a directory, or `embedded:NAME`.
      init: the architecture of a student that starts from random weights, in place of `path`.
      thinking: the chat template's switch: `default`, `on` or `off`.
      dtype: of activations and matrix products; the trained parameters are float32.
      remat: what the backward pass computes again instead of keeping it.
      attention: kernel of training and scoring passes.
      rules: which mesh axes split its arrays.
      lora: adapters, which alone train.
    """

    path: str = ""
    tokenizer: str = ""
    init: ModelConfig | None = None
    thinking: Thinking = "default"
    dtype: Dtype = "float32"
    remat: Annotated[str, one_of(*REMAT_POLICIES)] = "dots"
    attention: Kernel = "auto"
    rules: RuleSettings = RuleSettings()
    lora: AdapterSettings | None = None

    @classmethod
    def check_given(cls, given: Mapping[str, Any], path: str) -> None:
        """Refuses fields of `init` that the section itself has."""
        for name in NO_ARCHITECTURE:
            if name in (given.get("init") or {}):
                raise ValueError(
                    f"{path}.init.{name} is no part of an architecture. "
                    + ("Use the mesh section." if name == "mesh" else f"Set {path}.{name}.")
                )

    def __post_init__(self):
        check(self, "student")
        if self.init is None and not self.path:
            raise ValueError("student.path is empty: name the directory of a model.")
        if self.init is None and self.tokenizer:
            raise ValueError(
                f"student.tokenizer={self.tokenizer!r} without student.init: a model from "
                "student.path has a tokenizer of its own. Leave it empty."
            )
        if self.init is not None and self.path:
            raise ValueError(
                f"student.path={self.path!r} with student.init: a student has either a model's "
                "weights or random ones. Remove one of them."
            )
        if self.init is not None and not self.tokenizer:
            raise ValueError(
                "student.tokenizer is empty: random weights (student.init) come without one. Name "
                "the directory of a tokenizer."
            )


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """The model that is learnt from, never trained.

    Attributes:
      path: its directory, or `embedded:NAME`.
      thinking: the chat template's switch where the teacher has a prompt of its own.
      dtype: of its weights, activations and matrix products.
      attention: kernel of scoring passes.
      rules: which mesh axes split its arrays.
    """

    path: str
    thinking: Thinking = "default"
    dtype: Dtype = "float32"
    attention: Kernel = "auto"
    rules: RuleSettings = RuleSettings()

    def __post_init__(self):
        check(self, "teacher")
        if not self.path:
            raise ValueError(
                "teacher.path is empty: name the directory of a model, or remove the section."
            )


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis of the mesh.

    Attributes:
      data: devices along which a batch is split and parameters are whole; -1 takes all that are
        left.
      fsdp: devices along which both a batch and the parameters are split; -1 as for `data`.
      tensor: devices along which matrices are split and a batch is whole; -1 as for `data`.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        check(self, "mesh")
        for name, size in self.sizes.items():
            if size < 1 and size != -1:
                raise ValueError(f"mesh.{name}={size} must be at least 1, or -1 for the rest.")
        if list(self.sizes.values()).count(-1) > 1:
            raise ValueError(f"mesh={self.sizes}: only one of them may be -1.")

    @property
    def sizes(self) -> dict[str, int]:
        """By axis."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class PromptSettings:
    """What both models are asked.

    Attributes:
      format: the user's message, with `{problem}` in it.
      system: the system message of a chat; empty for none.
      chat: whether the message is wrapped in the model's chat template.
      template: a .jinja file, or the directory of a model that has one, in place of both models'
        own chat templates; empty for theirs.
      max_tokens: most tokens of a prompt.
    """

    format: str = "{problem}"
    system: str = ""
    chat: bool = True
    template: str = ""
    max_tokens: Count = 2048

    def __post_init__(self):
        check(self, "prompt")
        if "{problem}" not in self.format:
            raise ValueError(f"prompt.format={self.format!r} does not contain '{{problem}}'.")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How a model is measured.

    Attributes:
      samples: answers to each problem.
      temperature: of sampling.
      top_p: tokens are drawn from the likeliest ones that hold this share of probability.
      max_tokens: most tokens of an answer.
      batch_size: answers written at the same time; changes speed, not results.
      answer: how final answers are found: `boxed`, `flexible`, or, empty, as each data set says.
    """

    samples: Count = 1
    temperature: Temperature = 0.6
    top_p: TopP = 0.95
    max_tokens: Count = 32768
    batch_size: Count = 128
    answer: Annotated[str, one_of("", *MODES)] = ""

    def __post_init__(self):
        check(self, "evaluation")


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When a run is saved, and validated.

    Attributes:
      every: updates between two checkpoints, each of which is validated.
      max_to_keep: how many of the latest stay.
      keep_best: whether the best on validation stays, too.
    """

    every: Count = 50
    max_to_keep: Count = 2
    keep_best: bool = True

    def __post_init__(self):
        check(self, "checkpoint")


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """Readable trajectories in trajectories.jsonl.

    Attributes:
      rows: how many of a batch.
      every: updates between two samples; 0 for none.
    """

    rows: NonNegative = 4
    every: NonNegative = 20

    def __post_init__(self):
        check(self, "samples")


WANDB_MODES = ("off", "offline", "online")


@dataclasses.dataclass(frozen=True)
class TrackingSettings:
    """Who else is told.

    Attributes:
      tensorboard: event files in the workdir's `tensorboard` directory.
      wandb: `off`, `offline` (files in the workdir's `wandb` directory, for `wandb sync`), or
        `online`.
      project: of W&B.
      name: of the run there; the workdir's by default.
    """

    tensorboard: bool = False
    wandb: Annotated[str, one_of(*WANDB_MODES)] = "off"
    project: str = "motab"
    name: str = ""

    def __post_init__(self):
        check(self, "tracking")
        if self.wandb != "off" and not self.project:
            raise ValueError("tracking.project is empty: W&B needs the name of a project.")


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """Which updates are traced.

    Attributes:
      first: the first one, counted from 1; the very first compiles, and says little.
      steps: how many; 0 is off.
    """

    first: Count = 3
    steps: NonNegative = 0

    def __post_init__(self):
        check(self, "profile")
