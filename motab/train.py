"""MOTAB's train step: likelihood on stitched trajectories (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import distill.step
import models
from distill.loss import LossSums, trajectory_loss
from distill.signal import Signal
from distill.state import TrainState
from distill.trajectories import Trajectories
from models.parameters import Params
from motab.settings import MotabSettings

TrainStep = Callable[[TrainState, Params, Trajectories], tuple[TrainState, distill.step.Metrics]]


def make_train_step(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    settings: MotabSettings,
    optimizer: optax.GradientTransformation,
    sync_every: int = 1,
) -> TrainStep:
    """Builds the pure `train_step(state, teacher_params, trajectories) -> (state, metrics)`.

    It consumes trajectories and never samples. Which tokens train was decided when they were
    stitched (`settings.loss_on`, `settings.safe_loss`); the teacher is run only where `safe_loss` is
    a divergence, and may be None elsewhere.

    Args:
      sync_every: steps between two refreshes of the weights that rollouts are drawn with; above 1
        the state must have been made with `init_method_state`.
    """
    signal = (
        None
        if settings.safe_loss == "likelihood"
        else Signal(divergence=settings.safe_loss, jsd_beta=settings.jsd_beta)
    )

    def loss_fn(params: Params, teacher_params: Params, trajectories: Trajectories) -> LossSums:
        return trajectory_loss(
            params,
            student_config,
            trajectories,
            teacher_params,
            teacher_config,
            signal,
        )

    update = distill.step.make_train_step(loss_fn, optimizer)

    def train_step(state: TrainState, teacher_params: Params, trajectories: Trajectories):
        new, metrics = update(state, teacher_params, trajectories)
        if sync_every > 1:
            fresh = new.step % sync_every == 0
            rollout = jax.tree.map(
                lambda params, old: jnp.where(fresh, params, old),
                new.params,
                state.method_state["rollout_params"],
            )
            new = new.replace(method_state={**new.method_state, "rollout_params": rollout})
        return new, metrics

    return train_step


def init_method_state(params: Params, sync_every: int = 1) -> dict[str, Any]:
    """What MOTAB carries besides parameters: the rollout's own copy where it lags behind."""
    return {"rollout_params": jax.tree.map(jnp.copy, params)} if sync_every > 1 else {}


def rollout_params(state: TrainState) -> Params:
    """The weights that the next rollout is drawn with."""
    return state.method_state.get("rollout_params", state.params)
