"""A student and, where a method has one, its teacher: loaded, compared, placed on the mesh."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

import models
from distill.sharding import make_mesh
from experiments.paths import model_directory, tokenizer_directory
from experiments.tokenizer import compare_tokenizers, eos_ids, load_tokenizer, render_prompt
from models.parameters import Params


@dataclasses.dataclass(frozen=True)
class Pair:
    """What a method needs to know of its models. The student's parameters live in the state.

    Attributes:
      student_directory: where the student's tokenizer is, and its weights unless it starts from
        random ones (`student.init` in the config).
      tokenizer: of both models.
      vocab_size: ids that both models and the tokenizer know.
      eos_ids: ids that end a text.
    """

    student_directory: Path
    student_config: models.ModelConfig
    teacher_config: models.ModelConfig | None
    teacher_params: Params | None
    tokenizer: PreTrainedTokenizerFast
    vocab_size: int
    eos_ids: tuple[int, ...]
    mesh: Mesh | None
    prompt_format: str
    chat: bool

    def render(self, problem: str) -> list[int]:
        """Prompt ids of a problem, the same for both models."""
        return render_prompt(
            self.tokenizer, problem, prompt_format=self.prompt_format, chat=self.chat
        )


def load_pair(config: Any) -> Pair:
    """Reads tokenizers, configs and the teacher's weights.

    Raises:
      FileNotFoundError: a directory or a file in it is missing.
      ValueError: the tokenizers differ, or a checkpoint is not supported.
    """
    mesh = make_mesh(config.mesh)
    from_scratch = "init" in config.student
    directory = (
        tokenizer_directory(config.student.tokenizer)
        if from_scratch
        else model_directory(config.student.path)
    )
    tokenizer = load_tokenizer(directory)
    student = (
        models.ModelConfig(**config.student.init) if from_scratch else models.load_config(directory)
    ).replace(dtype=config.student.dtype, remat=config.student.remat, mesh=mesh)
    vocab = min(len(tokenizer), student.vocab_size)
    teacher, teacher_params = None, None
    if "teacher" in config:
        teacher_directory = model_directory(config.teacher.path)
        shared = compare_tokenizers(load_tokenizer(teacher_directory), tokenizer)
        teacher, teacher_params = models.load_pretrained(
            teacher_directory, dtype=config.teacher.dtype, mesh=mesh
        )
        vocab = min(vocab, shared, teacher.vocab_size)
    return Pair(
        student_directory=directory,
        student_config=student,
        teacher_config=teacher,
        teacher_params=teacher_params,
        tokenizer=tokenizer,
        vocab_size=vocab,
        eos_ids=eos_ids(tokenizer, directory),
        mesh=mesh,
        prompt_format=config.prompt.format,
        chat=config.prompt.chat,
    )


def start_student(pair: Pair, config: Any) -> Params:
    """The student's parameters before training, in float32: from disk, or drawn from the seed."""
    if "init" not in config.student:
        return models.load_pretrained(pair.student_directory, dtype="float32", mesh=pair.mesh)[1]
    places = None
    if pair.mesh is not None:
        places = models.shardings(pair.student_config, pair.mesh)
    init = jax.jit(lambda key: models.init(key, pair.student_config), out_shardings=places)
    return init(jax.random.key(config.seed))
