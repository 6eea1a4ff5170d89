"""TOPD's train step: which windows are real divergences; an update on rollouts and on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

import distill.train.update
import models
from distill.losses.signal import Signal
from distill.train.state import TrainState
from distill.trajectories import Trajectories
from models.parameters import Params
from topd.buffer import Buffer, held, init_buffer, push, threshold
from topd.loss import BatchWeights, GuidedSums, batch_weights, guided_loss
from topd.probe import Probe
from topd.settings import GuidanceSettings

# Entry of the method's state.
STATE = "near_future"

# What a loss is taken of, with rows first: rollouts, probe, guided windows [B, W] and weights.
Rows = tuple[Trajectories, Probe, jax.Array, BatchWeights]


class ProbedBatch(flax.struct.PyTreeNode):
    """The student's rollouts, and a look into their near futures, of the same weights."""

    trajectories: Trajectories
    probe: Probe


class NearFuture(flax.struct.PyTreeNode):
    """What the step carries.

    Attributes:
      low: distances at low-loss positions.
      gradient_ratio: |lambda grad L_traj| / |grad L_OPD| when it was last measured; 0 before.
    """

    low: Buffer
    gradient_ratio: jax.Array


TrainStep = Callable[
    [TrainState, Params, ProbedBatch], tuple[TrainState, distill.train.update.Metrics]
]


def init_method_state(settings: GuidanceSettings) -> dict[str, Any]:
    """What the train step carries, by name."""
    return {STATE: NearFuture(init_buffer(settings.buffer), jnp.zeros((), jnp.float32))}


def make_train_step(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    settings: GuidanceSettings,
    signal: Signal,
    optimizer: optax.GradientTransformation,
    micro_batches: int = 1,
) -> TrainStep:
    """Builds the pure `train_step(state, teacher_params, batch) -> (state, metrics)`.

    It consumes rollouts and their probe, and never samples. `state.method_state` is that of
    `init_method_state`. With the rule `transport` a batch's low-loss distances enter the buffer
    first, and its windows are then compared with all that it holds. `micro_batches` is
    `distill.train.update.make_train_step`'s; what concerns all rows, the threshold, the caps and
    the counts of tokens and windows, is that of the whole batch.

    Returns:
      The step. Metrics, besides those of `distill.train.update.make_train_step` and `GuidedSums`:
      `windows`, a count; `distance`, mean D_OT at candidates; `candidate_loss`, theirs; with the
      rule `transport` `low_distance`, the mean over the buffer, `threshold` (0 as long as there is
      none) and `high`, the share of the windows above it; and `gradient_ratio` where it is
      measured.
    """

    def loss_fn(params: Params, teacher_params: Params, shares: Any, rows: Rows) -> GuidedSums:
        trajectories, probe, guided, weights = rows
        return guided_loss(
            params,
            student_config,
            teacher_params,
            teacher_config,
            trajectories,
            probe,
            guided,
            signal,
            settings,
            shares,
            weights,
        )

    update = distill.train.update.make_train_step(loss_fn, optimizer, student_config, micro_batches)
    gradient = distill.train.update.make_gradient(loss_fn, student_config, micro_batches)

    def gradient_ratio(params: Params, teacher_params: Params, rows: Rows) -> jax.Array:
        own, traj = (
            optax.tree.norm(gradient(params, teacher_params, shares, rows)[1])
            for shares in ((1.0, 0.0), (0.0, 1.0))
        )
        return traj / jnp.maximum(own, jnp.finfo(own.dtype).tiny)

    def train_step(
        state: TrainState, teacher_params: Params, batch: ProbedBatch
    ) -> tuple[TrainState, distill.train.update.Metrics]:
        probe, here = batch.probe, state.method_state[STATE]
        valid = probe.starts.valid_BxW
        count = jnp.sum(valid)

        distance, candidate_loss = (
            jnp.sum(jnp.where(valid, x, 0.0)) / jnp.maximum(count, 1)
            for x in (probe.distance_BxW, probe.losses_BxW)
        )
        seen = {"windows": count, "distance": distance, "candidate_loss": candidate_loss}
        guided = valid
        if settings.needs_low_losses:
            assert probe.low_distance_Rx1 is not None and probe.low_valid_Rx1 is not None
            values, there = probe.low_distance_Rx1.reshape(-1), probe.low_valid_Rx1.reshape(-1)
            low = push(here.low, values, there)
            here = here.replace(low=low)
            bound = threshold(low, settings.high_quantile, settings.min_buffer)
            bound = jnp.maximum(bound, settings.least_distance)
            guided = valid & (probe.distance_BxW > bound)
            seen |= {
                "low_distance": jnp.nan_to_num(jnp.nanmean(held(low))),
                "threshold": jnp.where(jnp.isfinite(bound), bound, 0.0),
                "high": jnp.sum(guided) / jnp.maximum(count, 1),
            }
        weights = batch_weights(batch.trajectories, probe, guided, settings)
        # Low-loss positions have rows of their own number.
        probe = probe.replace(low_distance_Rx1=None, low_valid_Rx1=None)
        rows = batch.trajectories, probe, guided, weights
        if settings.gradient_ratio_every:
            here = here.replace(
                gradient_ratio=jax.lax.cond(
                    state.step % settings.gradient_ratio_every == 0,
                    lambda: gradient_ratio(state.params, teacher_params, rows),
                    lambda: here.gradient_ratio,
                )
            )
            seen["gradient_ratio"] = here.gradient_ratio
        new, metrics = update(state, teacher_params, (1.0, 1.0), rows)
        # Of a batch whose loss is not finite nothing is kept.
        here = distill.train.update.where(metrics["skipped"] == 0, here, state.method_state[STATE])
        method_state = {**state.method_state, STATE: here}
        return new.replace(method_state=method_state), {**metrics, **seen}

    return train_step
