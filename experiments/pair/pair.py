"""A student and, where a method has one, its teacher: loaded, compared, placed on the mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

import models
from distill.train.sharding import make_mesh
from experiments.config.reading import read_section
from experiments.config.sections import AdapterSettings, PromptSettings, StudentSettings
from experiments.config.tree import Config
from experiments.pair.model import Model
from experiments.pair.positions import check_positions
from experiments.pair.tokenizers import compare_tokenizers
from models.embedded import model_directory, tokenizer_directory
from models.parameters import Params
from models.text.chat import has_thinking_switch
from models.text.tokenizer import (
    Render,
    eos_ids,
    load_tokenizer,
    opens_thinking,
    render_prompt,
)

# Stream of the adapters' noise, apart from that of a base's arrays.
_ADAPTERS = 1
# Any problem shows what a template puts around it.
_PROBE = "1"


@dataclasses.dataclass(frozen=True)
class Pair:
    """What a method needs to know of its models. The student's parameters live in the state.

    Attributes:
      student_directory: where the student's tokenizer is, and its weights unless it starts from
        random ones.
      student_config: the student's architecture.
      from_scratch: whether the student starts from random weights (`student.init` in a config).
      teacher: None where there is none.
      tokenizer: of both models.
      vocab_size: ids that both models and the tokenizer know.
      eos_ids: ids that end a text, the student's and those that only the teacher's files name.
      render: a problem's prompt ids, as the student reads it, in rollouts, training and evaluation.
      teacher_render: the same as the teacher would be asked by itself.
      thinking_switches: whether the chat templates of student and teacher can be told to think.
    """

    student_directory: Path
    student_config: models.ModelConfig
    from_scratch: bool
    teacher: Model | None
    tokenizer: PreTrainedTokenizerFast
    vocab_size: int
    eos_ids: tuple[int, ...]
    mesh: Mesh | None
    render: Render
    teacher_render: Render
    thinking_switches: tuple[bool, bool] = (False, False)

    def student(self, params: Params) -> Model:
        """The student with these parameters."""
        return Model(params, self.student_config)

    @property
    def teacher_config(self) -> models.ModelConfig | None:
        """The teacher's architecture."""
        return None if self.teacher is None else self.teacher.config

    @property
    def teacher_params(self) -> Params | None:
        """The teacher's parameters, where it has any of its own."""
        return None if self.teacher is None else self.teacher.params

    def require_same_prompts(self) -> None:
        """For methods that compare both models behind one prompt.

        Raises:
          ValueError: the models' own renderings of a problem differ, both are shown; or they are
            alike although one model alone can be told to think, so that it may expect to begin with
            it.
        """
        student, teacher = self.render(_PROBE), self.teacher_render(_PROBE)
        if student != teacher:
            raise ValueError(
                "This method compares teacher and student behind the same prompt, but their chat "
                f"templates write\n  student: {self.tokenizer.decode(student)!r}\n"
                f"  teacher: {self.tokenizer.decode(teacher)!r}\n"
                "Set student.thinking and teacher.thinking alike, or name one chat template for "
                "both in prompt.template."
            )
        if self.thinking_switches[0] != self.thinking_switches[1]:
            one, other = (
                ("student", "teacher") if self.thinking_switches[0] else ("teacher", "student")
            )
            raise ValueError(
                f"The {one}'s chat template has a switch for thinking and the {other}'s has none: "
                f"their prompts look alike, but the {one} expects a response to begin with "
                f"<think>, and the {other} does not. Name one template for both in "
                f"prompt.template, for example the {one}'s directory, and set student.thinking and "
                "teacher.thinking both to 'off', or both to 'on'."
            )

    @functools.cached_property
    def opens_thinking(self) -> bool:
        """Whether prompts end in `<think>`: responses then begin inside of the thinking."""
        return opens_thinking(self.tokenizer, self.render(_PROBE))

    def gradable(self, response: str) -> str:
        """A response's text with the `<think>` that its prompt may have written."""
        return f"<think>{response}" if self.opens_thinking else response


def load_pair(config: Config) -> Pair:
    """Reads tokenizers, configs and the teacher's weights.

    Raises:
      FileNotFoundError: a directory or a file in it is missing.
      ValueError: the tokenizers differ, a checkpoint is not supported, or texts could be longer
        than a model's context.
    """
    mesh = make_mesh(config.mesh.sizes)
    directory = _student_directory(config.student)
    prompt = config.prompt
    tokenizer = load_tokenizer(directory, prompt.template)
    render = _renderer(prompt)
    student_render = functools.partial(render, tokenizer, thinking=config.student.thinking)
    teacher_render = student_render
    switches = False, False
    student = _student_config(config.student, directory, mesh)
    _check_lengths(config, student)
    vocab = min(len(tokenizer), student.vocab_size)
    ends = eos_ids(tokenizer, directory)
    teacher = None
    if config.teacher is not None:
        teacher_directory = model_directory(config.teacher.path)
        theirs = load_tokenizer(teacher_directory, prompt.template)
        shared = compare_tokenizers(theirs, tokenizer)
        ends = (*ends, *(i for i in eos_ids(theirs, teacher_directory) if i not in ends))
        if prompt.chat and not theirs.chat_template:
            theirs = tokenizer  # a base model has no template of its own to be asked in
        teacher_render = functools.partial(render, theirs, thinking=config.teacher.thinking)
        if prompt.chat:
            switches = has_thinking_switch(tokenizer), has_thinking_switch(theirs)
        architecture, params = models.load_pretrained(
            teacher_directory,
            dtype=config.teacher.dtype,
            mesh=mesh,
            rules=config.teacher.rules.table("teacher.rules"),
            stacked=mesh is not None or config.teacher_trains,
        )
        teacher = Model(params, architecture.replace(attention=config.teacher.attention))
        vocab = min(vocab, shared, architecture.vocab_size)
        ends = tuple(i for i in ends if i < vocab)
    return Pair(
        student_directory=directory,
        student_config=student,
        from_scratch=config.student.init is not None,
        teacher=teacher,
        tokenizer=tokenizer,
        vocab_size=vocab,
        eos_ids=ends,
        mesh=mesh,
        render=student_render,
        teacher_render=teacher_render,
        thinking_switches=switches,
    )


def abstract_pair(config: Config, mesh: Mesh | None) -> Pair:
    """As `load_pair`, from config.json files alone: the teacher's parameters are shapes.

    A student that is its own frozen teacher or reference is one. Where a directory holds no
    tokenizer, the embedded one stands in for it.

    Raises:
      FileNotFoundError: a directory or its config.json is missing.
      ValueError: a config.json, or a rule, is not supported.
    """
    directory = _student_directory(config.student)
    has_one = any((directory / name).exists() for name in ("tokenizer.json", "vocab.json"))
    tokenizers = directory if has_one else tokenizer_directory("embedded:tokenizer")
    tokenizer = load_tokenizer(tokenizers, config.prompt.template)
    render = functools.partial(
        _renderer(config.prompt), tokenizer, thinking=config.student.thinking
    )
    student = _student_config(config.student, directory, mesh)
    _check_lengths(config, student)
    teacher = None
    if config.teacher is not None:
        teacher = models.load_config(model_directory(config.teacher.path)).replace(
            dtype=config.teacher.dtype,
            attention=config.teacher.attention,
            mesh=mesh,
            rules=config.teacher.rules.table("teacher.rules"),
        )
    elif student.lora is None and config.taught_by_itself:
        teacher = student
    return Pair(
        student_directory=directory,
        student_config=student,
        from_scratch=config.student.init is not None,
        teacher=None
        if teacher is None
        else Model(models.abstract(teacher, teacher.dtype), teacher),
        tokenizer=tokenizer,
        vocab_size=min(c.vocab_size for c in (student, teacher) if c is not None),
        eos_ids=eos_ids(tokenizer, tokenizers),
        mesh=mesh,
        render=render,
        teacher_render=render,
    )


def _check_lengths(config: Config, student: models.ModelConfig) -> None:
    teacher = config.teacher
    roles: dict[str, models.ModelConfig | None] = {"student": student, "teacher": None}
    if teacher is not None:
        roles["teacher"] = models.load_config(model_directory(teacher.path))
    check_positions(config.lengths(), roles)


def _renderer(prompt: PromptSettings) -> Callable[..., list[int]]:
    """`render_prompt` with what both models' prompts share."""
    return functools.partial(
        render_prompt,
        prompt_format=prompt.format,
        chat=prompt.chat,
        system=prompt.system,
    )


def _student_directory(student: StudentSettings) -> Path:
    """Where the student's tokenizer is, and its weights unless it starts from random ones."""
    if student.init is not None:
        return tokenizer_directory(student.tokenizer)
    return model_directory(student.path)


def _student_config(
    student: StudentSettings, directory: Path, mesh: Mesh | None
) -> models.ModelConfig:
    base = models.load_config(directory) if student.init is None else student.init
    return base.replace(
        dtype=student.dtype,
        remat=student.remat,
        attention=student.attention,
        lora=None if student.lora is None else student.lora.architecture(),
        mesh=mesh,
        rules=student.rules.table("student.rules"),
    )


def lora_of(student: Mapping[str, Any]) -> models.LoraConfig | None:
    """The student's adapters, of its section in a config.json; None without any, or of rank 0.

    Raises:
      ValueError: a field of `lora` is unknown, missing or out of range.
    """
    lora = student.get("lora")
    return read_section(AdapterSettings, lora, "student.lora").architecture() if lora else None


def with_initial_student(pair: Pair, seed: int) -> Pair:
    """The pair with the student before training, frozen, in the teacher's place.

    With adapters that is the base, which the student's own parameters hold: there are no others.
    """
    if pair.student_config.lora is not None:
        base = Model(None, pair.student_config.replace(lora=None))
        return dataclasses.replace(pair, teacher=base)
    return dataclasses.replace(pair, teacher=pair.student(start_student(pair, seed)))


def start_student(pair: Pair, seed: int, stacked: bool = True) -> Params:
    """The student's parameters before training, in float32: from disk, or drawn from the seed.

    Adapters, if it has any, are fresh, and drawn from the seed.

    Args:
      stacked: False is for a student that only writes: its layers may then be a list, in the dtype
        that it computes in. It is held once; see `models.load_pretrained`.
    """
    key, config = jax.random.key(seed), pair.student_config
    stacked = stacked or pair.mesh is not None or pair.from_scratch
    params = _start_base(pair, key, stacked)
    if config.lora is None:
        return params
    key = jax.random.fold_in(key, _ADAPTERS)
    if stacked:
        return models.add_adapters(params, config, key)
    adapters = models.add_adapters({"layers": {}}, config, key)["layers"]
    layers = [
        {**layer, **{name: x[i].astype(config.dtype) for name, x in adapters.items()}}
        for i, layer in enumerate(params["layers"])
    ]
    return {**params, "layers": layers}


def _start_base(pair: Pair, key: jax.Array, stacked: bool) -> Params:
    if not pair.from_scratch:
        return models.load_pretrained(
            pair.student_directory,
            dtype="float32" if stacked else pair.student_config.dtype,
            mesh=pair.mesh,
            rules=pair.student_config.rules,
            stacked=stacked,
        )[1]
    base = pair.student_config.replace(lora=None)
    places = None if pair.mesh is None else models.shardings(base, pair.mesh)
    return jax.jit(lambda key: models.init(key, base), out_shardings=places)(key)
