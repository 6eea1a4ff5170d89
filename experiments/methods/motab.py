"""MOTAB in the training loop: online, or offline on a file of trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

import motab
from distill.state import TrainState
from distill.trajectories import Trajectories
from experiments.data.batches import PromptBatch, prompt_batches
from experiments.data.sources import load_source
from experiments.methods.base import Base
from experiments.methods.protocol import Outcome, Readable
from experiments.pair import Pair
from experiments.readable import readable_trajectories
from experiments.synthesis import Synthesiser, TrajectoryBatches, synthesise
from models.parameters import Params


class MotabOnline(Base):
    """Rollout, monitoring, correction and update with the student's own fresh weights."""

    def __init__(self, config: Any, pair: Pair):
        super().__init__(config, pair)
        if pair.teacher_config is None:
            raise ValueError("method=motab needs a teacher: set teacher.path.")
        self.sync_every = config.synthesis.sync_every
        if self.sync_every < 1:
            raise ValueError(f"synthesis.sync_every={self.sync_every} must be at least 1.")
        self.copies = config.synthesis.trajectories_per_prompt
        if self.copies < 1 or config.batch_size % self.copies:
            raise ValueError(
                f"batch_size={config.batch_size} is not a multiple of "
                f"synthesis.trajectories_per_prompt={self.copies}."
            )
        self.synthesiser = Synthesiser(config, pair)
        self.batches = prompt_batches(
            load_source(config.data.train),
            pair.render,
            batch_size=config.batch_size // self.copies,
            max_prompt_tokens=config.prompt.max_tokens,
            seed=config.seed,
        )
        self._train = self.jit_step(
            motab.make_train_step(
                pair.student_config,
                pair.teacher_config,
                self.synthesiser.settings,
                self.optimizer,
                self.sync_every,
            )
        )

    def method_state(self, params: Params) -> dict[str, Any]:
        """The rollout's weights, where they lag behind."""
        return motab.init_method_state(params, self.sync_every)

    def step(self, state: TrainState, batch: PromptBatch, step: int) -> Outcome:
        """One rollout and one update on it."""
        trajectories, record, rollout_metrics = self.synthesiser(
            motab.rollout_params(state), batch, self.copies, step
        )
        state, metrics = self._train(state, self.pair.teacher_params, trajectories)
        return Outcome(
            state, {**metrics, **rollout_metrics}, self._readable(trajectories, record, batch)
        )

    def _readable(
        self, trajectories: Trajectories, record: motab.Record, batch: PromptBatch
    ) -> Readable:
        rows = self.config.samples.rows
        first = jax.tree.map(lambda x: x[:rows], (trajectories, record))
        examples = [
            batch.examples[i // self.copies] for i in range(min(rows, self.config.batch_size))
        ]
        return lambda: readable_trajectories(*jax.device_get(first), examples, self.pair.tokenizer)


class MotabOffline(Base):
    """Epochs over trajectories that the student's initial weights and the teacher wrote once."""

    def __init__(self, config: Any, pair: Pair, workdir: Path):
        super().__init__(config, pair)
        if pair.teacher_config is None:
            raise ValueError("method=motab needs a teacher: set teacher.path.")
        path = Path(config.synthesis.file) if config.synthesis.file else workdir / "synthesis.jsonl"
        if not config.synthesis.file:
            synthesise(config, pair, path)
        settings = motab.MotabSettings(**config.motab)
        self.batches = TrajectoryBatches(config, pair, path)
        self._train = self.jit_step(
            motab.make_train_step(
                pair.student_config, pair.teacher_config, settings, self.optimizer
            )
        )

    def step(self, state: TrainState, batch: dict[str, Any], step: int) -> Outcome:
        """One update on stored trajectories."""
        rows = batch["records"]
        state, metrics = self._train(
            state, self.pair.teacher_params, self.place(batch["trajectories"])
        )
        counts = {
            f"tokens_{name}": sum(r["tokens"][name] for r in rows) for name in rows[0]["tokens"]
        }
        measured = {
            "backtracked": np.mean([r["breach"] >= 0 and not r["dropped"] for r in rows]),
            "dropped": np.mean([r["dropped"] for r in rows]),
            "truncated": np.mean([r["truncated"] for r in rows]),
            **counts,
            "tokens": sum(counts.values()),
            "rows": len(rows),
        }
        sample = [r["readable"] for r in rows[: self.config.samples.rows]]
        return Outcome(state, {**metrics, **measured}, lambda: sample)
