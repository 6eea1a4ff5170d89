"""MOTAB's train step: likelihood on stitched trajectories (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable

import optax

import distill.train.update
import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.train.state import TrainState
from distill.trajectories import Trajectories
from models.parameters import Params
from motab.settings import MotabSettings

TrainStep = Callable[
    [TrainState, Params, Trajectories], tuple[TrainState, distill.train.update.Metrics]
]


def make_train_step(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    settings: MotabSettings,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
) -> TrainStep:
    """Builds the pure `train_step(state, teacher_params, trajectories) -> (state, metrics)`.

    It consumes trajectories and never samples. Which tokens train was decided when they were
    stitched (`settings.loss_on`, `settings.safe_loss`); the teacher is run only where `safe_loss`
    is a divergence, and may be None elsewhere. `micro_batches` is
    `distill.train.update.make_train_step`'s.
    """
    signal = None
    if settings.safe_loss != "likelihood":
        signal = Signal(divergence=settings.safe_loss, jsd_beta=settings.jsd_beta)

    def loss_fn(params: Params, teacher_params: Params, trajectories: Trajectories) -> LossSums:
        teacher = teacher_params, teacher_config
        return trajectory_loss(params, student_config, trajectories, *teacher, signal)

    return distill.train.update.make_train_step(loss_fn, optimizer, student_config, micro_batches)
