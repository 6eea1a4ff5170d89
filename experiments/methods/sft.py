"""Supervised fine-tuning on reference solutions; also how the embedded models are pretrained."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import distill.train.update
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.train.state import TrainState
from distill.trajectories import Source, Trajectories
from experiments.config.tree import SftConfig
from experiments.data.batches import CompletionBatch, completion_batches
from experiments.data.sources import load_source
from experiments.methods.base import Base
from experiments.methods.protocol import Outcome
from experiments.pair.pair import Pair
from models.parameters import Params


class Sft(Base):
    """Likelihood of the reference given the problem."""

    def __init__(self, config: SftConfig, pair: Pair):
        super().__init__(pair, config.optimizer, config.steps, config.batch_size)
        self.batches = completion_batches(
            load_source(config.data.train.spec),
            pair.tokenizer,
            pair.render,
            batch_size=config.batch_size,
            max_tokens=config.sft.max_tokens,
            shuffle=config.sft.shuffle,
            seed=config.seed,
            overlong=config.sft.overlong,
        )

        def loss_fn(params: Params, trajectories: Trajectories) -> LossSums:
            return trajectory_loss(params, pair.student_config, trajectories)

        self._train = self.jit_step(
            distill.train.update.make_train_step(
                loss_fn, self.optimizer, pair.student_config, self.micro_batches
            )
        )

    def step(self, state: TrainState, batch: CompletionBatch, step: int) -> Outcome:
        """One update on a batch of references."""
        trajectories = self.place(_trajectories(batch))
        state, metrics = self._train(state, trajectories)
        metrics["tokens"] = jax.numpy.asarray(int(batch.weights_BxT.sum()))
        return Outcome(state, metrics, trajectories)


def _trajectories(batch: CompletionBatch) -> Trajectories:
    at = np.broadcast_to(
        np.arange(batch.tokens_BxT.shape[1], dtype=np.int32), batch.tokens_BxT.shape
    )
    present = at < batch.lengths_B[:, None]
    source = np.where(batch.weights_BxT > 0, Source.TEACHER, Source.PROMPT)
    rows: Any = Trajectories  # of host arrays, for now
    return rows(
        tokens_BxT=batch.tokens_BxT,
        source_BxT=np.where(present, source, Source.PADDING).astype(np.int32),
        likelihood_weights_BxT=batch.weights_BxT,
        divergence_weights_BxT=np.zeros_like(batch.weights_BxT),
        positions_BxT=at,
        segment_ids_BxT=present.astype(np.int32),
    )
