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
from experiments.config.settings import read_settings
from experiments.pair.tokenizers import compare_tokenizers
from models.embedded import model_directory, tokenizer_directory
from models.parameters import Params
from models.sharding import make_rules
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
        random ones (`student.init` in the config).
      tokenizer: of both models.
      vocab_size: ids that both models and the tokenizer know.
      eos_ids: ids that end a text, the student's and those that only the teacher's files name.
      render: a problem's prompt ids, as the student reads it, in rollouts, training and evaluation.
      teacher_render: the same as the teacher would be asked by itself.
      thinking_switches: whether the chat templates of student and teacher can be told to think.
    """

    student_directory: Path
    student_config: models.ModelConfig
    teacher_config: models.ModelConfig | None
    teacher_params: Params | None
    tokenizer: PreTrainedTokenizerFast
    vocab_size: int
    eos_ids: tuple[int, ...]
    mesh: Mesh | None
    render: Render
    teacher_render: Render
    thinking_switches: tuple[bool, bool] = (False, False)

    def require_same_prompts(self) -> None:
        """For methods that compare both models behind one prompt.

        Raises:
          ValueError: the models' own renderings of a problem differ, both are shown; or they are alike
            although one model alone can be told to think, so that it may expect to begin with it.
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
                f"The {one}'s chat template has a switch for thinking and the {other}'s has none: their "
                f"prompts look alike, but the {one} expects a response to begin with <think>, and the "
                f"{other} does not. Name one template for both in prompt.template, for example the "
                f"{one}'s directory, and set student.thinking and teacher.thinking both to 'off', or "
                "both to 'on'."
            )

    @functools.cached_property
    def opens_thinking(self) -> bool:
        """Whether prompts end in `<think>`: responses then begin inside of the thinking."""
        return opens_thinking(self.tokenizer, self.render(_PROBE))

    def gradable(self, response: str) -> str:
        """A response's text with the `<think>` that its prompt may have written."""
        return f"<think>{response}" if self.opens_thinking else response


def load_pair(config: Any) -> Pair:
    """Reads tokenizers, configs and the teacher's weights.

    Raises:
      FileNotFoundError: a directory or a file in it is missing.
      ValueError: the tokenizers differ, or a checkpoint is not supported.
    """
    mesh = make_mesh(config.mesh)
    directory = _student_directory(config)
    prompt = config.prompt
    tokenizer = load_tokenizer(directory, prompt.template)
    render = _renderer(config)
    student_render = functools.partial(render, tokenizer, thinking=config.student.thinking)
    teacher_render = student_render
    switches = False, False
    student = _student_config(config, directory, mesh)
    vocab = min(len(tokenizer), student.vocab_size)
    ends = eos_ids(tokenizer, directory)
    teacher, teacher_params = None, None
    if "teacher" in config:
        teacher_directory = model_directory(config.teacher.path)
        theirs = load_tokenizer(teacher_directory, prompt.template)
        shared = compare_tokenizers(theirs, tokenizer)
        ends = (*ends, *(i for i in eos_ids(theirs, teacher_directory) if i not in ends))
        if prompt.chat and not theirs.chat_template:
            theirs = tokenizer  # a base model has no template of its own to be asked in
        teacher_render = functools.partial(render, theirs, thinking=config.teacher.thinking)
        if prompt.chat:
            switches = has_thinking_switch(tokenizer), has_thinking_switch(theirs)
        teacher, teacher_params = models.load_pretrained(
            teacher_directory,
            dtype=config.teacher.dtype,
            mesh=mesh,
            rules=make_rules(config.teacher.get("rules", {}), "teacher.rules"),
        )
        teacher = teacher.replace(attention=config.teacher.attention)
        vocab = min(vocab, shared, teacher.vocab_size)
        ends = tuple(i for i in ends if i < vocab)
    return Pair(
        student_directory=directory,
        student_config=student,
        teacher_config=teacher,
        teacher_params=teacher_params,
        tokenizer=tokenizer,
        vocab_size=vocab,
        eos_ids=ends,
        mesh=mesh,
        render=student_render,
        teacher_render=teacher_render,
        thinking_switches=switches,
    )


def abstract_pair(config: Any, mesh: Mesh | None) -> Pair:
    """As `load_pair`, from config.json files alone: the teacher's parameters are shapes.

    A student that is its own frozen teacher or reference is one. Where a directory holds no
    tokenizer, the embedded one stands in for it.

    Raises:
      FileNotFoundError: a directory or its config.json is missing.
      ValueError: a config.json, or a rule, is not supported.
    """
    directory = _student_directory(config)
    has_one = any((directory / name).exists() for name in ("tokenizer.json", "vocab.json"))
    tokenizers = directory if has_one else tokenizer_directory("embedded:tokenizer")
    tokenizer = load_tokenizer(tokenizers, config.prompt.template)
    render = functools.partial(_renderer(config), tokenizer, thinking=config.student.thinking)
    student = _student_config(config, directory, mesh)
    teacher = None
    if "teacher" in config:
        teacher = models.load_config(model_directory(config.teacher.path)).replace(
            dtype=config.teacher.dtype,
            attention=config.teacher.attention,
            mesh=mesh,
            rules=make_rules(config.teacher.get("rules", {}), "teacher.rules"),
        )
    elif student.lora is None and (
        (config.method == "atesd" and config.exposed.weights == "frozen")
        or (config.method == "grpo" and config.grpo.kl_weight > 0)
    ):
        teacher = student
    return Pair(
        student_directory=directory,
        student_config=student,
        teacher_config=teacher,
        teacher_params=None if teacher is None else models.abstract(teacher, teacher.dtype),
        tokenizer=tokenizer,
        vocab_size=min(c.vocab_size for c in (student, teacher) if c is not None),
        eos_ids=eos_ids(tokenizer, tokenizers),
        mesh=mesh,
        render=render,
        teacher_render=render,
    )


def _renderer(config: Any) -> Callable[..., list[int]]:
    """`render_prompt` with what both models' prompts share."""
    prompt = config.prompt
    return functools.partial(
        render_prompt,
        prompt_format=prompt.format,
        chat=prompt.chat,
        system=prompt.system,
    )


def _student_directory(config: Any) -> Path:
    """Where the student's tokenizer is, and its weights unless it starts from random ones."""
    if "init" in config.student:
        return tokenizer_directory(config.student.tokenizer)
    return model_directory(config.student.path)


def _student_config(config: Any, directory: Path, mesh: Mesh | None) -> models.ModelConfig:
    fields = config.student
    base = (
        read_section(models.ModelConfig, fields["init"], "student.init")
        if "init" in fields
        else models.load_config(directory)
    )
    return base.replace(
        dtype=fields.dtype,
        remat=fields.remat,
        attention=fields.attention,
        lora=lora_of(fields),
        mesh=mesh,
        rules=make_rules(fields.get("rules", {}), "student.rules"),
    )


def lora_of(student: Mapping[str, Any]) -> models.LoraConfig | None:
    """The student's adapters, of its config's section; None without the field or with rank 0.

    Raises:
      ValueError: a field of `lora` is unknown, missing or out of range.
    """
    lora = student.get("lora")
    if not lora or lora.get("rank") == 0:
        return None
    fields = dict(lora)
    if "targets" in fields:
        fields["targets"] = tuple(fields["targets"])  # a list in JSON
    return read_settings(models.LoraConfig, {"lora": fields}, "lora")


def with_initial_student(pair: Pair, config: Any) -> Pair:
    """The pair with the student before training, frozen, in the teacher's place.

    With adapters that is the base, which the student's own parameters hold: there are no others.
    """
    if pair.student_config.lora is not None:
        return dataclasses.replace(
            pair, teacher_config=pair.student_config.replace(lora=None), teacher_params=None
        )
    return dataclasses.replace(
        pair, teacher_config=pair.student_config, teacher_params=start_student(pair, config)
    )


def start_student(pair: Pair, config: Any) -> Params:
    """The student's parameters before training, in float32: from disk, or drawn from the seed.

    Adapters, if it has any, are fresh, and drawn from the seed.
    """
    key = jax.random.key(config.seed)
    params = _start_base(pair, config, key)
    if pair.student_config.lora is None:
        return params
    return models.add_adapters(params, pair.student_config, jax.random.fold_in(key, _ADAPTERS))


def _start_base(pair: Pair, config: Any, key: jax.Array) -> Params:
    if "init" not in config.student:
        return models.load_pretrained(
            pair.student_directory,
            dtype="float32",
            mesh=pair.mesh,
            rules=pair.student_config.rules,
        )[1]
    base = pair.student_config.replace(lora=None)
    places = None if pair.mesh is None else models.shardings(base, pair.mesh)
    return jax.jit(lambda key: models.init(key, base), out_shardings=places)(key)
