"""MOTAB's synthesis on random models: texts of skewed length, half of which the teacher corrects.

A share 1 / mean of all ids ends a text, so that lengths are geometric; as many as make a step of
the wanted length end a step. The boundary is static, at the value that half of the texts breach.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import models
from distill.steps.table import StepTable, make_step_table
from experiments.bench.peers.bench_protocol import Session
from models.decoding.slots import Slots
from models.parameters import Params
from motab import MotabSettings, make_rollout
from motab.rollout import make_slots

_REVISION = 2  # tokens


@dataclasses.dataclass(frozen=True)
class Setup:
    """Models, settings and prompts.

    Attributes:
      shape: fields of `workloads.MotabShape`.
      table: the step delimiter's; `delimiter_id` stands for it.
    """

    shape: dict[str, int]
    student_config: models.ModelConfig
    teacher_config: models.ModelConfig
    student: Params
    teacher: Params
    settings: MotabSettings
    table: StepTable
    delimiter_id: int
    revision_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]
    prompts: np.ndarray
    prompt_lengths: np.ndarray
    key: jax.Array

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.student_config,
            self.teacher_config,
            self.settings,
            self.table,
            (self.delimiter_id,),
            self.revision_ids,
            self.eos_ids,
        )

    def slots(self) -> Slots:
        """The backtracking rollout for an engine."""
        return make_slots(*self._arguments())

    def rollout(self) -> Any:
        """The compiled backtracking rollout of `batches`."""
        rollout = make_rollout(*self._arguments())
        return jax.jit(lambda *batch: rollout(self.student, self.teacher, *batch, self.key))

    def batches(self, rows: int) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        """Prompts [b, P], their lengths and ids, `rows` at a time."""
        for start in range(0, len(self.prompts), rows):
            ids = np.arange(start, min(start + rows, len(self.prompts)))
            yield (
                jnp.asarray(self.prompts[ids]),
                jnp.asarray(self.prompt_lengths[ids]),
                jnp.asarray(ids),
            )


def make_setup(session: Session) -> Setup:
    """The same in every process."""
    request = session.request
    shape, vocab = request["motab"], request["vocab_size"]
    student_config, student = models.load_pretrained(request["student"], dtype=request["dtype"])
    teacher_config, teacher = models.load_pretrained(request["teacher"], dtype=request["dtype"])
    ends = max(1, vocab // shape["mean"])
    delimiters = max(1, vocab // shape["step"])
    texts = [b""] * ends + [b".\n\n"] * delimiters + [b"a"] * (vocab - ends - delimiters)
    ordinary = ends + delimiters
    draw = np.random.default_rng(request["seed"])
    lengths = draw.integers(shape["prompt"] // 4, shape["prompt"] + 1, shape["prompts"])
    prompts = draw.integers(ordinary, vocab, (shape["prompts"], shape["prompt"]))
    prompts = np.where(np.arange(shape["prompt"]) < lengths[:, None], prompts, 0)
    total = shape["max_total"]
    settings = MotabSettings(
        boundary="static",
        gamma_0=0.0,
        student_temperature=1.0,
        teacher_temperature=1.0,
        max_step_tokens=4 * shape["step"],
        max_total=total,
        max_correction=total // 2,
        min_correction=max(1, total // 16),
        chunk=shape["chunk"],
    )
    setup = Setup(
        shape=shape,
        student_config=student_config,
        teacher_config=teacher_config,
        student=student,
        teacher=teacher,
        settings=settings,
        table=make_step_table(texts, ".\n\n"),
        delimiter_id=ends,
        revision_ids=tuple(range(ordinary, ordinary + _REVISION)),
        eos_ids=tuple(range(ends)),
        prompts=prompts.astype(np.int32),
        prompt_lengths=lengths.astype(np.int32),
        key=jax.random.key(request["seed"]),
    )
    # Found by the first process that needs it.
    file = Path(request["scratch"]) / "boundary.json"
    if not file.exists():
        file.write_text(json.dumps(_gamma(setup)), encoding="utf-8")
    gamma = json.loads(file.read_text(encoding="utf-8"))
    return dataclasses.replace(setup, settings=dataclasses.replace(settings, gamma_0=gamma))


def _gamma(setup: Setup) -> float:
    """The median over texts of their least step value."""
    rollout, lowest = setup.rollout(), []
    for batch in setup.batches(setup.shape["batch"]):
        record = jax.device_get(rollout(*batch)[1])
        steps = np.arange(record.values_BxL.shape[1]) < record.num_steps_B[:, None]
        lowest.append(np.where(steps, record.values_BxL, np.inf).min(axis=1))
    return float(np.median(np.concatenate(lowest)))
