"""MOTAB as a recipe: the backtracking rollout, and likelihood on what it stitched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

import motab
from distill.steps.table import make_step_table
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from experiments.config.tree import MotabConfig, RoundSettings
from experiments.pair.pair import Pair
from experiments.rollouts.policies import run_batch
from experiments.rollouts.readable import readable_trajectories
from experiments.rollouts.recipe import Recipe, TrainStep
from experiments.tasks.example import Example
from models.text.tokenizer import encode, token_bytes


class MotabRecipe(Recipe):
    """The rollout and the loss that `motab` in a config describes."""

    sources = motab.metrics.SOURCES

    def __init__(self, pair: Pair, rounds: RoundSettings, settings: motab.MotabSettings):
        super().__init__(pair, rounds)
        assert pair.teacher_config is not None
        self._configs = pair.student_config, pair.teacher_config
        self.settings = settings
        table = make_step_table(
            token_bytes(pair.tokenizer, pair.student_config.vocab_size), self.settings.delimiter
        )
        slots = motab.make_slots(
            *self._configs,
            self.settings,
            table,
            encode(pair.tokenizer, self.settings.delimiter),
            encode(pair.tokenizer, self.settings.revision_text),
            pair.eos_ids,
            pair.vocab_size,
        )
        self.slots = (slots,)

    @classmethod
    def from_config(cls, config: MotabConfig, pair: Pair) -> MotabRecipe:
        """The recipe of `config.motab`."""
        return cls(pair, config.rounds, config.motab)

    def rollout(self, *inputs: Any) -> tuple[Trajectories, motab.Record]:
        """See `motab.make_rollout`."""
        return run_batch(self.slots[0], *inputs)

    def rollout_metrics(self, trajectories: Trajectories, record: motab.Record) -> Metrics:
        """See `motab.rollout_metrics`."""
        return motab.rollout_metrics(trajectories, record)

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """See `motab.make_train_step`."""
        return motab.make_train_step(*self._configs, self.settings, optimizer, micro_batches)

    def readable(
        self, trajectories: Trajectories, record: motab.Record, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """See `readable_trajectories`."""
        return readable_trajectories(trajectories, record, examples, self.pair.tokenizer)

    def row(self, record: motab.Record, b: int) -> dict[str, Any]:
        """Where the steps end, and what became of them."""
        return {
            "step_ends": record.step_ends_BxL[b, : int(record.num_steps_B[b])].tolist(),
            "breach": int(record.breach_B[b]),
            "dropped": bool(record.dropped_B[b]),
            "truncated": bool(record.truncated_B[b]),
        }

    def row_metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`backtracked`, `dropped`, `truncated`: shares of the rows."""
        return {
            "backtracked": np.mean([r["breach"] >= 0 and not r["dropped"] for r in rows]),
            "dropped": np.mean([r["dropped"] for r in rows]),
            "truncated": np.mean([r["truncated"] for r in rows]),
        }
