"""A recipe offline: epochs over trajectories that were written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.train.state import TrainState
from experiments.config.tree import WritingConfig
from experiments.methods.base import Base
from experiments.methods.protocol import Outcome
from experiments.pair.pair import Pair
from experiments.rollouts.recipe import Recipe
from experiments.rollouts.synthesis import SYNTHESIS, synthesise
from experiments.rollouts.trajectory_batches import TrajectoryBatches
from models.paths import local_path


class Offline(Base):
    """Updates on a file of what the student's initial weights and the teacher wrote."""

    def __init__(self, config: WritingConfig, pair: Pair, recipe: Recipe, workdir: Path):
        super().__init__(pair, config.optimizer, config.steps, config.batch_size)
        self.recipe, self._shown = recipe, config.samples.rows
        self._packed = bool(config.synthesis.pack_to)
        path = workdir / SYNTHESIS
        if config.synthesis.file:
            path = local_path(config.synthesis.file, "synthesis.file")
        if not config.synthesis.file:
            synthesise(config, pair, recipe, path)
        self.batches = TrajectoryBatches(config, recipe, path)
        self._train = self.jit_step(recipe.train_step(self.optimizer, self.micro_batches))

    def step(self, state: TrainState, batch: dict[str, Any], step: int) -> Outcome:
        """One update on stored trajectories."""
        rows = batch["records"]
        trajectories = self.place(batch["trajectories"])
        state, metrics = self._train(state, self.pair.teacher_params, trajectories)
        counts = {
            f"tokens_{name}": sum(r["tokens"][name] for r in rows) for name in rows[0]["tokens"]
        }
        measured = {
            **self.recipe.row_metrics(rows),
            **counts,
            "tokens": sum(counts.values()),
            "rows": len(rows),
        }
        if self._packed:
            measured["positions_used"] = self.batches.used
        if self.recipe.selects:
            measured["kept"] = self.batches.kept
        if self.recipe.needs_answer:
            measured["timed_out"] = self.batches.timed_out
        sample = [r["readable"] for r in rows[: self._shown]]
        return Outcome(state, {**metrics, **measured}, trajectories, lambda: sample)
