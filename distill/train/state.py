"""The state of a training run: everything a checkpoint must hold on the device."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


class TrainState(flax.struct.PyTreeNode):
    """What a train step maps to its successor.

    Attributes:
      step: [] int32, batches trained on; those that changed nothing (`distill.train.update`) count.
      params: the student's parameters.
      opt_state: the optimizer's state, sharded like the parameters.
      method_state: whatever else a method carries from step to step (rollout weights, controllers,
        buffers); an empty dict where there is nothing.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    method_state: Any


def create_state(
    params: Any, optimizer: optax.GradientTransformation, method_state: Any = None
) -> TrainState:
    """The state before the first update.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> state = create_state({"w": jnp.zeros(3)}, optax.adamw(1e-3))
      >>> int(state.step), list(state.params)
      (0, ['w'])
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        method_state={} if method_state is None else method_state,
    )
