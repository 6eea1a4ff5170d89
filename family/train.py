"""The family's train step: advantages within groups, responses' weights, one update of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from distill.losses.surrogate import group_advantages
from distill.train.state import TrainState
from distill.train.update import Metrics, make_train_step, parts_of_rows, rows_of_parts
from family.loss import Objective, PlannedBatch, PlannedSums
from models.parameters import Params
from models.sharding import constrain_rows

TrainStep = Callable[[TrainState, Params | None, PlannedBatch], tuple[TrainState, Metrics]]


def init_method_state(params: Params, exposed: bool) -> dict[str, Any]:
    """The teacher's own copy of the weights, where it is the student some updates ago."""
    return {"teacher_params": jax.tree.map(jnp.copy, params)} if exposed else {}


def make_planned_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    group_size: int = 1,
    micro_batches: int = 1,
    teacher_sync: int = 0,
) -> TrainStep:
    """Builds `train_step(state, teacher_params, batch) -> (state, metrics)`.

    Args:
      group_size: responses to a prompt, whose rewards are compared.
      micro_batches: parts of a batch, one after the other.
      teacher_sync: updates between two refreshes of the teacher that `init_method_state` made of
        the student; 0 where the teacher is given.
    """

    def loss_fn(
        params: Params,
        old_params: Params | None,
        teacher_params: Params | None,
        step: jax.Array,
        batch: PlannedBatch,
    ) -> PlannedSums:
        return objective(params, old_params, teacher_params, step, batch)

    update = make_train_step(loss_fn, optimizer, objective.student_config, micro_batches)

    def train_step(
        state: TrainState, teacher_params: Params | None, batch: PlannedBatch
    ) -> tuple[TrainState, Metrics]:
        # Without lagging weights, the current ones wrote the text.
        old_params = state.method_state.get("rollout_params")
        theirs = state.method_state["teacher_params"] if teacher_sync else teacher_params
        batch = rewarded(objective, batch, group_size)
        if objective.method.row_weights is not None:
            weights_B = _row_weights(
                objective, state.params, theirs, batch, group_size, micro_batches
            )
            batch = batch.replace(row_weight_B=weights_B)
        new, metrics = update(state, old_params, theirs, state.step, batch)
        if teacher_sync:
            fresh = new.step % teacher_sync == 0
            copy = jax.tree.map(lambda x, old: jnp.where(fresh, x, old), new.params, theirs)
            new = new.replace(method_state={**new.method_state, "teacher_params": copy})
        return new, metrics

    return train_step


def rewarded(objective: Objective, batch: PlannedBatch, group_size: int) -> PlannedBatch:
    """A whole batch with what its rewards say of every row; as it was, without rewards."""
    if batch.rewards_B is None:
        return batch
    groups_NxG = batch.rewards_B.reshape(-1, group_size) > 0
    group_right_B = jnp.repeat(jnp.any(groups_NxG, axis=1), group_size).astype(jnp.float32)
    advantage_B = group_advantages(batch.rewards_B, group_size, objective.surrogate.advantage)
    return batch.replace(advantage_B=advantage_B, group_right_B=group_right_B)


def _row_weights(
    objective: Objective,
    params: Params,
    teacher_params: Params | None,
    batch: PlannedBatch,
    group_size: int,
    parts: int,
) -> jax.Array:
    """Responses' weights [B]: a pass over the whole batch, since they compare a group's responses.

    One response lies on a row.
    """
    config = objective.student_config

    def means(part: PlannedBatch) -> tuple[jax.Array, jax.Array]:
        part = constrain_rows(part, config.mesh, config.rules, "micro-batch")
        student, teacher = objective.readouts(params, teacher_params, part)
        t = objective.tokens(student, teacher, None, jnp.zeros((), jnp.int32), part)
        count_B = jnp.maximum(jnp.sum(t.counted_BxT, axis=1), 1)
        assert t.log_q_BxT is not None
        log_p_B, log_q_B = (jnp.sum(x, axis=1) / count_B for x in (t.log_p_BxT, t.log_q_BxT))
        return log_p_B, log_q_B

    split = jax.tree.map(lambda x: parts_of_rows(x, parts), batch)
    log_p_B, log_q_B = (rows_of_parts(x) for x in jax.lax.map(means, split))
    assert objective.method.row_weights is not None and batch.rewards_B is not None
    weights_B = objective.method.row_weights(
        objective.plan, log_p_B, log_q_B, batch.rewards_B, group_size
    )
    return jax.lax.stop_gradient(weights_B)
