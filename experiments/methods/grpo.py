"""GRPO as a recipe: the student answers in groups, and right answers are the reward.

`grpo` in a config are the fields of `grpo.policy_gradient.GrpoSettings`. A group are the
`synthesis.trajectories_per_prompt` responses to a prompt; `batch_size` counts responses. The reward
is 1 where the final answer is right (`experiments.grading.grade`) and 0 elsewhere; a truncated
response is graded like any other. With `synthesis.sync_every` above 1 older weights write the text,
the ratio leaves 1, and clipping acts. Where it is 1 the surrogate's value is the mean advantage,
which is 0 whatever the policy does: follow `reward`, not `loss`.

No teacher is needed. With `grpo.kl_weight` above 0 the frozen reference policy of the penalty is
the student before training, as in the paper, or the model of a `teacher` section.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

import distill.train.update
from distill.losses.surrogate import group_advantages
from distill.train.state import TrainState
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from experiments.config.tree import GrpoConfig, RoundSettings
from experiments.data.batches import PromptBatch
from experiments.pair.pair import Pair, with_initial_student
from experiments.rollouts.own_samples import GradedSamples
from experiments.rollouts.recipe import TrainStep
from grpo.policy_gradient import GrpoSettings, SurrogateSums, policy_gradient_loss
from models.decoding.sampling import Sampling
from models.parameters import Params


class GrpoRecipe(GradedSamples):
    """Groups of the student's own samples, and the clipped surrogate on them."""

    needs_answer = True

    def __init__(self, pair: Pair, rounds: RoundSettings, settings: GrpoSettings, group_size: int):
        if settings.kl_weight > 0 and pair.teacher is None:
            pair = with_initial_student(pair, rounds.seed)
        super().__init__(pair, rounds, Sampling(settings.student_temperature), "likelihood")
        self.settings, self.group_size = settings, group_size

    @classmethod
    def from_config(cls, config: GrpoConfig, pair: Pair) -> GrpoRecipe:
        """The recipe of `config.grpo`, with groups of `synthesis.trajectories_per_prompt`."""
        return cls(pair, config.rounds, config.grpo, config.synthesis.trajectories_per_prompt)

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[tuple[Trajectories, np.ndarray], Metrics]:
        """Trajectories and their rewards [B]; see `GradedSamples.rewards`."""
        rewards_B, metrics = self.rewards(trajectories, record, batch, copies)
        return (trajectories, rewards_B), metrics

    def abstract_inputs(self, trajectories: Any) -> Any:
        """With rewards [B]."""
        rows = trajectories.tokens_BxT.shape[0]
        return trajectories, jax.ShapeDtypeStruct((rows,), np.float32)

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """One update on (trajectories, rewards [B]); the update's metrics and the sums'."""
        pair, settings = self.pair, self.settings

        def loss_fn(
            params: Params,
            old_params: Params | None,
            reference_params: Params | None,
            batch: tuple[Trajectories, jax.Array],
        ) -> SurrogateSums:
            trajectories, advantages_B = batch
            return policy_gradient_loss(
                params,
                pair.student_config,
                settings,
                trajectories,
                advantages_B,
                old_params,
                reference_params,
                pair.teacher_config,
                pair.vocab_size,
            )

        update = distill.train.update.make_train_step(
            loss_fn, optimizer, pair.student_config, micro_batches
        )

        def train_step(
            state: TrainState, teacher_params: Params | None, inputs: tuple[Trajectories, jax.Array]
        ) -> tuple[TrainState, Metrics]:
            # Without lagging weights, the current ones wrote the text.
            old_params = state.method_state.get("rollout_params")
            # A student with adapters holds the reference policy: it is their base.
            reference_params = state.params if teacher_params is None else teacher_params
            trajectories, rewards_B = inputs
            advantages_B = group_advantages(rewards_B, self.group_size, settings.advantage)
            return update(state, old_params, reference_params, (trajectories, advantages_B))

        return train_step
