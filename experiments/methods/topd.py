"""TOPD as a recipe: the student's own rollouts, a look into their near futures, and a guided loss.

    rollout    the student's sampling: fields of
    `experiments.config.method_sections.RolloutSettings` signal     the OPD loss: fields of
    `distill.losses.signal.Signal` windows    the fields of `topd.WindowSettings`: where windows
    open, and how they are written transport  the fields of `topd.TransportSettings`: how far two
    windows are apart guidance   the fields of `topd.GuidanceSettings`: what windows do to the loss

With `synthesis.sync_every` above 1, windows are those of the rollout's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

import topd
from distill.losses.signal import Signal
from distill.train.sharding import batch_multiple
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from experiments.config.tree import RoundSettings, TopdConfig
from experiments.data.batches import PromptBatch
from experiments.pair.pair import Pair
from experiments.rollouts.own_samples import OwnSamples
from experiments.rollouts.readable import readable_rows
from experiments.rollouts.recipe import TrainStep
from experiments.tasks.example import Example
from models.decoding.sampling import Sampling
from models.parameters import Params
from models.text.tokenizer import decode


class TopdRecipe(OwnSamples):
    """The student's rollouts, probed; the record has `truncated` and the `probe`."""

    def __init__(
        self,
        pair: Pair,
        rounds: RoundSettings,
        sampling: Sampling,
        opd: Signal,
        windows: topd.WindowSettings,
        transport: topd.TransportSettings,
        guidance: topd.GuidanceSettings,
    ):
        assert pair.teacher_config is not None
        self.opd, self.windows = opd, windows
        self.transport, self.guidance = transport, guidance
        parts = batch_multiple(pair.mesh)
        if self.guidance.needs_low_losses and self.windows.low_rows % parts:
            raise ValueError(
                f"windows.low_rows={self.windows.low_rows} rows do not divide over the {parts} "
                "devices that share a batch. Use a multiple of them, or 0 for all rows."
            )
        super().__init__(pair, rounds, sampling, "divergence")
        self._probe = jax.jit(
            topd.make_probe(
                pair.student_config,
                pair.teacher_config,
                self.windows,
                self.transport,
                self.guidance,
                self.opd,
                pair.eos_ids,
                pair.vocab_size,
            )
        )

    @classmethod
    def from_config(cls, config: TopdConfig, pair: Pair) -> TopdRecipe:
        """The recipe of `config.rollout`, `signal`, `windows`, `transport` and `guidance`."""
        return cls(
            pair,
            config.rounds,
            config.rollout.sampling,
            config.signal,
            config.windows,
            config.transport,
            config.guidance,
        )

    def __call__(
        self, student_params: Params, batch: PromptBatch, copies: int, round_: int
    ) -> tuple[Trajectories, Any, Metrics]:
        """Rollouts, and the probe of the same weights in their record."""
        trajectories, record, metrics = super().__call__(student_params, batch, copies, round_)
        probe = self._probe(
            student_params,
            self.pair.teacher_params,
            trajectories,
            self.sample_ids(batch, copies),
            self._key(round_),
        )
        return trajectories, {**record, "probe": probe}, metrics

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[Any, Metrics]:
        """Rollouts and probe."""
        return topd.ProbedBatch(trajectories, record["probe"]), {}

    def method_state(self, params: Params) -> dict[str, Any]:
        """The distances at low-loss positions."""
        return topd.init_method_state(self.guidance)

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """See `topd.make_train_step`."""
        assert self.pair.teacher_config is not None
        return topd.make_train_step(
            self.pair.student_config,
            self.pair.teacher_config,
            self.guidance,
            self.opd,
            optimizer,
            micro_batches,
        )

    def readable(
        self, trajectories: Trajectories, record: Any, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """The texts, and every window's two continuations."""
        rows = readable_rows(trajectories, examples, self.pair.tokenizer)
        for b, row in enumerate(rows):
            row["windows"] = self._windows(record["probe"], b)
        return rows

    def _windows(self, probe: topd.Probe, b: int) -> list[dict[str, Any]]:
        def text(tokens: Any, counts: Any, w: int) -> str:
            return decode(self.pair.tokenizer, tokens[b, w, : counts[b, w]].tolist())

        return [
            {
                "position": int(probe.starts.at_BxW[b, w]),
                "loss": float(probe.losses_BxW[b, w]),
                "distance": float(probe.distance_BxW[b, w]),
                "student": text(probe.student_BxWxK, probe.student_counts_BxW, w),
                "teacher": text(probe.teacher_BxWxK, probe.teacher_counts_BxW, w),
            }
            for w in np.flatnonzero(probe.starts.valid_BxW[b]).tolist()
        ]
