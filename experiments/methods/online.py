"""A recipe online: at every step a rollout with the student's weights, and an update on it."""

from __future__ import annotations

from typing import Any

import jax

from distill.train.state import TrainState
from distill.trajectories import Trajectories
from experiments.config.tree import WritingConfig
from experiments.data.batches import PromptBatch, prompt_batches
from experiments.data.sources import load_source
from experiments.machine.processes import fetch
from experiments.methods.base import Base
from experiments.methods.protocol import Outcome, Readable
from experiments.methods.sync import init_method_state, refreshing, rollout_params
from experiments.pair.pair import Pair
from experiments.rollouts.recipe import Recipe
from models.parameters import Params


class Online(Base):
    """Rollout and update in turns; the rollout's weights are refreshed every few steps."""

    def __init__(self, config: WritingConfig, pair: Pair, recipe: Recipe):
        super().__init__(pair, config.optimizer, config.steps, config.batch_size)
        recipe.start_grading()
        self.recipe, self.sync_every = recipe, config.synthesis.sync_every
        self.copies = config.synthesis.trajectories_per_prompt
        self._shown = min(config.samples.rows, config.batch_size)
        self.batches = prompt_batches(
            load_source(config.data.train.spec, recipe.needs_answer),
            pair.render,
            batch_size=config.batch_size // self.copies,
            max_prompt_tokens=config.prompt.max_tokens,
            seed=config.seed,
        )
        train_step = recipe.train_step(self.optimizer, self.micro_batches)
        self._train = self.jit_step(refreshing(train_step, self.sync_every))

    def method_state(self, params: Params) -> dict[str, Any]:
        """The rollout's weights, where they lag behind, and what the recipe carries."""
        return {**init_method_state(params, self.sync_every), **self.recipe.method_state(params)}

    def step(self, state: TrainState, batch: PromptBatch, step: int) -> Outcome:
        """One rollout and one update on it."""
        trajectories, record, rollout_metrics = self.recipe(
            rollout_params(state), batch, self.copies, step
        )
        inputs, more = self.recipe.training_inputs(trajectories, record, batch, self.copies)
        state, metrics = self._train(state, self.recipe.pair.teacher_params, self.place(inputs))
        metrics = {**metrics, **rollout_metrics, **more}
        return Outcome(state, metrics, inputs, self._readable(trajectories, record, batch))

    def _readable(self, trajectories: Trajectories, record: Any, batch: PromptBatch) -> Readable:
        count = self._shown
        first: Any = jax.tree.map(lambda x: x[:count], (trajectories, record))
        examples = [batch.examples[i // self.copies] for i in range(count)]

        def readable() -> list[dict[str, Any]]:
            rows, what = fetch(first)
            return self.recipe.readable(rows, what, examples)

        return readable
