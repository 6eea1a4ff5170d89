"""Rollouts with weights that lag behind: a copy in the state, refreshed every few updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from distill.train.state import TrainState
from distill.train.update import Metrics
from models.parameters import Params

TrainStep = Callable[..., tuple[TrainState, Metrics]]


def init_method_state(params: Params, sync_every: int = 1) -> dict[str, Any]:
    """The rollout's own copy of the weights, where it lags behind."""
    return {"rollout_params": jax.tree.map(jnp.copy, params)} if sync_every > 1 else {}


def rollout_params(state: TrainState) -> Params:
    """The weights that the next rollout is drawn with."""
    return state.method_state.get("rollout_params", state.params)


def refreshing(train_step: TrainStep, sync_every: int) -> TrainStep:
    """`train_step`; after every `sync_every`-th update the rollout's weights are the new ones."""
    if sync_every == 1:
        return train_step

    def step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        new, metrics = train_step(state, *inputs)
        fresh = new.step % sync_every == 0
        rollout = jax.tree.map(
            lambda params, old: jnp.where(fresh, params, old),
            new.params,
            state.method_state["rollout_params"],
        )
        return new.replace(method_state={**new.method_state, "rollout_params": rollout}), metrics

    return step
