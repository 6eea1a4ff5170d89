"""Meshes, and where batches and train states live on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import models
from distill.train.state import TrainState, frozen
from models.sharding import AXES, Rules, batch_multiple, partition_spec


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The mesh of all devices, or None where there is one device and nothing to divide.

    Args:
      sizes: devices along `data`, `fsdp` and `tensor`; at most one -1 takes the rest.
      devices: in the mesh's order, `tensor` running fastest; those of all processes by default.

    Raises:
      ValueError: the sizes do not fill the devices.
    """
    unknown = sorted(set(sizes) - set(AXES))
    if unknown:
        raise ValueError(f"mesh.{unknown[0]}: the axes are {AXES}.")
    shape = [int(sizes.get(axis, 1)) for axis in AXES]
    devices = jax.devices() if devices is None else devices
    fixed = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(f"mesh={dict(sizes)}: sizes are at least 1, and one of them may be -1.")
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if math.prod(shape) != len(devices):
        raise ValueError(f"mesh={dict(sizes)} does not fill the {len(devices)} devices there are.")
    if len(devices) == 1:
        return None
    if devices[0].platform == "tpu":  # neighbors on the mesh are neighbors on the chips' network
        return Mesh(create_device_mesh(shape, devices, allow_split_physical_axes=True), AXES)
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def batch_sharding(mesh: Mesh, rules: Rules | None = None) -> NamedSharding:
    """Rows over the batch axes; whatever comes behind them is whole."""
    axes = ("batch",)
    spec = partition_spec(axes, mesh) if rules is None else partition_spec(axes, mesh, rules)
    return NamedSharding(mesh, spec)


def round_up(rows: int, mesh: Mesh | None) -> int:
    """The least number of rows, `rows` or more, that divides over the devices along the batch."""
    parts = batch_multiple(mesh)
    return -(-rows // parts) * parts


def whole(mesh: Mesh) -> NamedSharding:
    """Of what every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    config: models.ModelConfig,
    mesh: Mesh,
) -> TrainState:
    """Shardings of a train state's arrays: whatever has a parameter's shape lies where it does.

    Args:
      state: the state or its `jax.eval_shape`. Whatever in its method state is built like the
        parameters (those of the rollout, of an averaged teacher) lies where they do.
      config: the student's; its rules place the parameters.
    """
    params = models.shardings(config, mesh)
    everywhere = whole(mesh)

    def place(x: Any, there: NamedSharding, like: Any) -> Any:
        if frozen(x):  # an array that does not train has no state
            return x
        return there if x.shape == like.shape else everywhere  # a factored moment, say

    opt_state: Any = optax.tree_map_params(
        optimizer,
        place,
        state.opt_state,
        params,
        state.params,
        transform_non_params=lambda _: everywhere,
        is_leaf=frozen,
    )
    like_params: Any = jax.tree.structure(state.params)
    method_state = {
        name: params
        if jax.tree.structure(value) == like_params
        else jax.tree.map(lambda _: everywhere, value)
        for name, value in state.method_state.items()
    }
    tree: Any = TrainState  # of shardings in place of arrays
    return tree(step=everywhere, params=params, opt_state=opt_state, method_state=method_state)
