"""TOPD as a recipe: the student's own rollouts, a look into their near futures, and a guided loss.

    rollout    the student's sampling: fields of `experiments.rollouts.own_samples.RolloutSettings`
    signal     the OPD loss: fields of `distill.losses.signal.Signal`
    windows    the fields of `topd.WindowSettings`: where windows open, and how they are written
    transport  the fields of `topd.TransportSettings`: how far two windows are apart
    guidance   the fields of `topd.GuidanceSettings`: what windows do to the loss

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
from experiments.config.settings import read_settings
from experiments.data.batches import PromptBatch
from experiments.pair.pair import Pair
from experiments.rollouts.own_samples import OwnSamples, RolloutSettings
from experiments.rollouts.readable import readable_rows
from experiments.rollouts.recipe import TrainStep
from experiments.tasks.example import Example
from models.parameters import Params
from models.text.tokenizer import decode


class TopdRecipe(OwnSamples):
    """The student's rollouts, probed; the record has `truncated` and the `probe`."""

    section = "rollout"

    def __init__(self, config: Any, pair: Pair):
        if config.synthesis.mode != "online":
            raise ValueError(
                f"synthesis.mode={config.synthesis.mode!r} with method='topd': it distils on the "
                "student's own fresh rollouts. Use 'online'."
            )
        if pair.teacher_config is None:
            raise ValueError("method='topd' needs a teacher: set teacher.path.")
        self.opd = read_settings(Signal, config, "signal")
        self.windows = read_settings(topd.WindowSettings, config, "windows")
        self.transport = read_settings(topd.TransportSettings, config, "transport")
        self.guidance = read_settings(topd.GuidanceSettings, config, "guidance")
        rollout = read_settings(RolloutSettings, config, "rollout")
        _check(config, self.opd, self.windows, self.guidance, rollout)
        _check_positions(config, pair, self.windows, rollout)
        parts = batch_multiple(pair.mesh)
        if self.guidance.needs_low_losses and self.windows.low_rows % parts:
            raise ValueError(
                f"windows.low_rows={self.windows.low_rows} rows do not divide over the {parts} devices "
                "that share a batch. Use a multiple of them, or 0 for all rows."
            )
        super().__init__(config, pair, rollout.sampling, rollout.max_total, "divergence")
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

    def __call__(
        self, student_params: Params, batch: PromptBatch, copies: int, round_: int
    ) -> tuple[Trajectories, Any, Metrics]:
        """Rollouts, and the probe of the same weights in their record."""
        trajectories, record, metrics = super().__call__(student_params, batch, copies, round_)
        probe = self._probe(
            student_params, self.pair.teacher_params, trajectories,
            self.sample_ids(batch, copies), self._key(round_),
        )  # fmt: skip
        return trajectories, {**record, "probe": probe}, metrics

    def training_inputs(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[Any, Metrics]:
        """Rollouts and probe."""
        return topd.ProbedBatch(trajectories, record["probe"]), {}

    def method_state(self, params: Params) -> dict[str, Any]:
        """The distances at low-loss positions."""
        return topd.init_method_state(self.guidance)

    def train_step(self, optimizer: optax.GradientTransformation) -> TrainStep:
        """See `topd.make_train_step`."""
        assert self.pair.teacher_config is not None
        return topd.make_train_step(
            self.pair.student_config,
            self.pair.teacher_config,
            self.guidance,
            self.opd,
            optimizer,
            self.config.optimizer.micro_batches,
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


def _check(
    config: Any,
    signal: Signal,
    windows: topd.WindowSettings,
    guidance: topd.GuidanceSettings,
    rollout: RolloutSettings,
) -> None:
    """Refuses settings that do not go together, before any work.

    Raises:
      ValueError: names the fields.
    """
    rows = windows.low_rows or config.batch_size
    if guidance.needs_low_losses and min(rows, config.batch_size) > guidance.buffer:
        raise ValueError(
            f"guidance.buffer={guidance.buffer} holds fewer distances than the {rows} rows of a batch "
            "add. Raise it, or lower windows.low_rows."
        )
    if windows.per_rollout > rollout.max_total:
        raise ValueError(
            f"windows.per_rollout={windows.per_rollout} with rollout.max_total={rollout.max_total}: "
            "there are more windows than positions. Lower it."
        )
    if signal.support != "sampled":
        return
    for name, value, right in (
        ("rollout.student_temperature", rollout.student_temperature, 1.0),
        ("rollout.student_top_p", rollout.student_top_p, 1.0),
        ("rollout.student_top_k", rollout.student_top_k, 0),
        ("synthesis.sync_every", config.synthesis.get("sync_every", 1), 1),
    ):
        if value != right:
            raise ValueError(
                f"{name}={value!r} with signal.support='sampled': the gradient at a sampled token is "
                f"the divergence's only over the student's current, unfiltered distribution. Set it to "
                f"{right!r}, or use signal.support='full' or 'top_k'."
            )


def _check_positions(
    config: Any, pair: Pair, windows: topd.WindowSettings, rollout: RolloutSettings
) -> None:
    """Raises where a window behind a rollout's last token would leave a model's context.

    Raises:
      ValueError: names the fields and the limit.
    """
    needed = config.prompt.max_tokens + rollout.max_total + windows.tokens
    assert pair.teacher_config is not None
    most = min(pair.student_config.max_positions, pair.teacher_config.max_positions)
    if needed > most:
        raise ValueError(
            f"prompt.max_tokens={config.prompt.max_tokens}, rollout.max_total={rollout.max_total} "
            f"and windows.tokens={windows.tokens} are {needed} tokens, but a model has {most} "
            "positions. Lower one of them."
        )
