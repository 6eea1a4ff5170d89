"""ATESD, OPSD and fixed, random or scheduled exposure as a recipe: the student's own rollouts, and
the divergence to a teacher that also sees a part of the reference.

    exposure    the teacher's context: template, where a reference may be cut, and its widths
    controller  the fields of `atesd.ControllerSettings`: who decides how much is seen
    exposed     the fields of `atesd.TeacherSettings`: whose weights the teacher has
    loss        the fields of `atesd.LossSettings`
    rollout     the student's sampling: `student_temperature`, `student_top_p`, `student_top_k`,
                `max_total`

Without a `teacher` section the frozen teacher is the student before training; where that has
adapters (`student.lora`) it is their base, held once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import atesd
from atesd.prompts import ExposedPrompts
from atesd.references import ReferenceTokens
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from experiments.config.tree import AtesdConfig
from experiments.data.batches import PromptBatch, prompt_batches
from experiments.data.sources import load_source
from experiments.machine.processes import place_rows
from experiments.methods.base import check_rows
from experiments.pair.model import Model
from experiments.pair.pair import Pair, start_student, with_initial_student
from experiments.rollouts.own_samples import OwnSamples
from experiments.rollouts.recipe import TrainStep
from experiments.tasks.example import Example
from models.parameters import Params

# Rounds of a run's own rollouts count from 0; none of them shares noise with these.
_PROBE_ROUND, _CONTROLLER_ROUND = 2**31 - 1, 2**31 - 2


class AtesdRecipe(OwnSamples):
    """The student's rollouts, and an exposed teacher.

    It takes the whole config of its method, of which it reads nearly every section: its own five,
    `prompt`, `data.validation` and `steps`.
    """

    own_context = True

    def __init__(self, config: AtesdConfig, pair: Pair):
        self._config, self.loss, self.controller = config, config.loss, config.controller
        self.teacher, self.exposure = config.exposed, config.exposure
        if pair.teacher is None:
            # Self-distillation: a frozen teacher is the student as it starts.
            pair = (
                with_initial_student(pair, config.seed)
                if self.teacher.weights == "frozen"
                else dataclasses.replace(pair, teacher=Model(None, pair.student_config))
            )
        super().__init__(pair, config.rounds, config.rollout.sampling, "divergence")
        self._prompts = ExposedPrompts(
            pair.tokenizer,
            self.exposure.max_reasoning,
            self.exposure.message,
            self.exposure.unit,
            config.prompt.chat,
            config.prompt.system,
            self.exposure.thinking,
        )
        check_rows("exposure.probe_size", self.exposure.probe_size, pair.mesh)
        self._held_out = self._read_probe() if self.exposure.probe_size else None

    @classmethod
    def from_config(cls, config: AtesdConfig, pair: Pair) -> AtesdRecipe:
        """The recipe of the config."""
        return cls(config, pair)

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[Any, Metrics]:
        """The batch with its references, and the probe; how many references were irregular."""
        references = self._references(batch.examples, copies)
        counts = {
            "references_without_answer": jnp.sum(~jnp.asarray(references.had_answer_B)),
            "references_empty": jnp.sum(jnp.asarray(references.empty_B)),
            "references_overlong": jnp.sum(jnp.asarray(references.overlong_B)),
        }
        return (atesd.ExposedBatch(trajectories, references), self._probe), counts

    def abstract_inputs(self, trajectories: Any) -> Any:
        """With references, and the probe."""
        empty = ReferenceTokens((), (), (), (), (0,), True, True, False)

        def batch(rows: int) -> atesd.ExposedBatch:
            references = atesd.pack_references([empty] * rows, self.exposure.widths)
            as_shape: Any = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype),
                (trajectories, references),
            )
            return atesd.ExposedBatch(*as_shape)

        size = self.exposure.probe_size
        return batch(trajectories.tokens_BxT.shape[0]), batch(size) if size else None

    def method_state(self, params: Params) -> dict[str, Any]:
        """The controller, and the teacher's averaged weights."""
        key = jax.random.fold_in(jax.random.key(self.rounds.seed), _CONTROLLER_ROUND)
        return atesd.init_method_state(params, key, self.controller, self.teacher)

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """See `atesd.make_train_step`."""
        assert self.pair.teacher_config is not None
        return atesd.make_train_step(
            self.pair.student_config,
            self.pair.teacher_config,
            self.loss,
            self.controller,
            self.teacher,
            optimizer,
            self._config.steps,
            self.max_total,
            self.pair.eos_ids[0],
            micro_batches,
        )

    def _references(self, examples: Sequence[Example], copies: int) -> atesd.References:
        rows = [
            self._prompts(x.problem, x.reference, x.answer) for x in examples for _ in range(copies)
        ]
        return atesd.pack_references(rows, self.exposure.widths)

    def _read_probe(self) -> tuple[PromptBatch, atesd.References]:
        """Held-out problems."""
        config, size = self._config, self.exposure.probe_size
        assert config.data.validation is not None
        source = load_source(config.data.validation.spec)
        if len(source) < size:
            raise ValueError(
                f"exposure.probe_size={size}, but data.validation has {len(source)} problems."
            )
        batch = next(
            prompt_batches(
                source,
                self.pair.render,
                batch_size=size,
                max_prompt_tokens=config.prompt.max_tokens,
                shuffle=False,
            )
        )
        return batch, self._references(batch.examples, 1)

    @functools.cached_property
    def _probe(self) -> atesd.ExposedBatch | None:
        """The held-out problems, and what the student before training writes about them."""
        if self._held_out is None:
            return None
        batch, references = self._held_out
        trajectories, _, _ = self(
            start_student(self.pair, self.rounds.seed), batch, 1, _PROBE_ROUND
        )
        return place_rows(atesd.ExposedBatch(trajectories, references), self.pair.mesh)
