"""Methods of the family as recipes: the student's own samples, and a plan of what they train for.

    rollout    the student's sampling
    plan       the method's own settings: see `family.methods.METHODS`
    surrogate  the fields of `family.SurrogateSettings`
    context    what the teacher reads, where it is the student itself some updates ago

Where a plan reads rewards, a group are the `synthesis.trajectories_per_prompt` responses to a
prompt, and `batch_size` counts responses. Lightning OPD keeps its text and the teacher's scores.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import family
from distill.losses.log_probs import token_log_probs
from distill.losses.signal import Signal
from distill.train.state import TrainState
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from experiments.config.method_sections import AnswerContext
from experiments.config.tree import PlannedConfig, RoundSettings
from experiments.data.batches import PromptBatch
from experiments.pair.model import Model
from experiments.pair.pair import Pair, start_student
from experiments.rollouts.own_samples import GradedSamples
from experiments.rollouts.recipe import TrainStep
from models.decoding.sampling import Sampling
from models.parameters import Params
from models.transformer import forward_hidden


class PlannedRecipe(GradedSamples):
    """A plan on the student's fresh samples.

    Args:
      method, plan, surrogate: as in `family.Objective`.
      group_size: responses to a prompt.
      context: what the teacher reads, where it is the student itself.
    """

    def __init__(
        self,
        pair: Pair,
        rounds: RoundSettings,
        sampling: Sampling,
        method: family.Method,
        plan: Any,
        surrogate: family.SurrogateSettings,
        group_size: int,
        context: AnswerContext | None = None,
    ):
        self.method, self.plan, self.surrogate = method, plan, surrogate
        self.group_size, self.context = group_size, context
        self.needs_answer = method.rewarded or method.exposed
        self.own_context = method.exposed
        if method.exposed:
            pair = dataclasses.replace(pair, teacher=Model(None, pair.student_config))
        super().__init__(pair, rounds, sampling, "likelihood")

    @classmethod
    def from_config(cls, config: PlannedConfig, pair: Pair) -> PlannedRecipe:
        """The recipe of `config.plan`, with groups of `synthesis.trajectories_per_prompt`."""
        return cls(
            pair,
            config.rounds,
            config.rollout.sampling,
            config.point,
            config.plan,
            config.surrogate,
            config.synthesis.trajectories_per_prompt,
            config.context,
        )

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[family.PlannedBatch, Metrics]:
        """The rows, and what the plan reads of them; metrics as in `GradedSamples.rewards`."""
        more: dict[str, Any] = {}
        metrics: Metrics = {}
        if self.method.rewarded:
            more["rewards_B"], metrics = self.rewards(trajectories, record, batch, copies)
        if self.method.reference:
            more["log_ref_BxT"] = self._reference(trajectories)
        if self.context is not None:
            more |= self._contexts(batch, copies)
        return family.PlannedBatch(trajectories, **more), metrics

    def abstract_inputs(self, trajectories: Any) -> Any:
        """With rewards, a reference's log-probabilities and contexts, where the plan reads them."""
        rows, width = trajectories.tokens_BxT.shape
        more: dict[str, Any] = {}
        if self.method.rewarded:
            more["rewards_B"] = jax.ShapeDtypeStruct((rows,), np.float32)
        if self.method.reference:
            more["log_ref_BxT"] = jax.ShapeDtypeStruct((rows, width), np.float32)
        if self.context is not None:
            shape = rows, self.context.max_tokens
            more["contexts_BxC"] = jax.ShapeDtypeStruct(shape, np.int32)
            more["context_lengths_B"] = jax.ShapeDtypeStruct((rows,), np.int32)
        return family.PlannedBatch(trajectories, **more)

    def method_state(self, params: Params) -> dict[str, Any]:
        """The teacher's weights, where they are the student's some updates ago."""
        return family.init_method_state(params, self.method.exposed)

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """See `family.make_planned_step`."""
        objective = family.Objective(
            student_config=self.pair.student_config,
            teacher_config=self.pair.teacher_config,
            method=self.method,
            plan=self.plan,
            surrogate=self.surrogate,
            vocab_size=self.pair.vocab_size,
            eos_ids=self.pair.eos_ids,
            max_response=self.max_total,
        )
        return family.make_planned_step(
            objective,
            optimizer,
            self.group_size,
            micro_batches,
            0 if self.context is None else self.context.sync_every,
        )

    def _contexts(self, batch: PromptBatch, copies: int) -> dict[str, np.ndarray]:
        """What the teacher reads before each response.

        Raises:
          ValueError: a context that is longer than `context.max_tokens`.
        """
        assert self.context is not None
        most, render = self.context.max_tokens, self.pair.render
        rows = [render(self.context.message(x.problem, x.answer)) for x in batch.examples]
        for example, ids in zip(batch.examples, rows, strict=True):
            if len(ids) > most:
                raise ValueError(
                    f"context.max_tokens={most}, but the context of {example.id} has {len(ids)} "
                    "tokens. Raise it, or leave the problem out."
                )
        contexts = np.zeros((len(rows), most), np.int32)
        for row, ids in zip(contexts, rows, strict=True):
            row[: len(ids)] = ids
        lengths = np.array([len(ids) for ids in rows], np.int32)
        return {
            "contexts_BxC": np.repeat(contexts, copies, axis=0),
            "context_lengths_B": np.repeat(lengths, copies),
        }

    @functools.cached_property
    def _reference(self) -> Callable[[Trajectories], jax.Array]:
        """Log-probabilities [B, T] of the tokens by the student before training."""
        config, vocab = self.pair.student_config, self.pair.vocab_size
        params = start_student(self.pair, self.rounds.seed)

        def of(params: Params, t: Trajectories) -> jax.Array:
            inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
            hidden = forward_hidden(params, config, *inputs)
            scores = token_log_probs(params, config, hidden, t.tokens_BxT[:, 1:], vocab)
            return jnp.pad(scores, ((0, 0), (1, 0)))

        return functools.partial(jax.jit(of), params)


class LightningRecipe(PlannedRecipe):
    """A plan on kept text, and on what the teacher once said of it."""

    # What is kept for it: the sampled token's log-probability.
    signal = Signal(support="sampled", form="advantage")

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """On trajectories with kept scores; the teacher is not run."""
        planned = super().train_step(optimizer, micro_batches)

        def train_step(
            state: TrainState, teacher_params: Params | None, trajectories: Trajectories
        ) -> tuple[TrainState, Metrics]:
            return planned(state, None, family.PlannedBatch(trajectories))

        return train_step
