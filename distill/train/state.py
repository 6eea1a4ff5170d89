"""The state of a training run: everything a checkpoint must hold on the device."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from models.lora import is_adapter


class TrainState(flax.struct.PyTreeNode):
    """What a train step maps to its successor.

    Attributes:
      step: [] int32, batches trained on; those that changed nothing (`distill.train.update`) count.
      params: the student's parameters.
      opt_state: the optimizer's state, sharded like the parameters; of those that train.
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
    """The state before the first update. The optimizer keeps nothing for a frozen base.

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
        opt_state=optimizer.init(trained(params)),
        method_state={} if method_state is None else method_state,
    )


def holds_adapters(params: Any) -> bool:
    """Whether some arrays of a tree are adapters (`models.lora`), by their names."""
    return any(_adapter(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))


def trained(params: Any) -> Any:
    """What trains of a tree like the parameters: all of it, or where there are adapters they alone.

    An `optax.MaskedNode` stands in for what is frozen: transformations pass it by, and masks and
    labels made for the whole tree still fit.
    """
    if not holds_adapters(params):
        return params
    return jax.tree.map_with_path(
        lambda path, x: x if _adapter(path) else optax.MaskedNode(), params
    )


def with_trained(part: Any, params: Any) -> Any:
    """`params`, in which what trains is that of `part`, a tree of `trained`."""
    return jax.tree.map(lambda new, old: old if frozen(new) else new, part, params, is_leaf=frozen)


def _adapter(path: tuple[Any, ...]) -> bool:
    return bool(path) and is_adapter(str(getattr(path[-1], "key", "")))


def frozen(x: Any) -> bool:
    """Whether x stands in for an array that does not train."""
    return isinstance(x, optax.MaskedNode)
