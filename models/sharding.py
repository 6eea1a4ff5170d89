"""Which array axis lies on which mesh axis: one table of rules, by logical name."""

from __future__ import annotations

import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = tuple[tuple[str, tuple[str, ...]], ...]
LogicalAxes = tuple[str | None, ...]

# Weights split their embedding axis over `fsdp` and the other one over `tensor`; activations
# split the batch over `data` and `fsdp` and only heads and the MLP over `tensor`. The residual
# stream stays whole: constraining it keeps the partitioner from choosing layouts whose
# gradients it gets wrong.
DEFAULT_RULES: Rules = (
    ("batch", ("data", "fsdp")),
    ("embed", ("fsdp",)),
    ("vocab", ("tensor",)),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("mlp", ("tensor",)),
)


def partition_spec(axes: LogicalAxes, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> PartitionSpec:
    """The partition spec of an array whose axes have these logical names.

    Logical names without a rule, and mesh axes that `mesh` does not have, mean replication.
    """
    table = dict(rules)
    entries = []
    for axis in axes:
        names = tuple(n for n in table.get(axis or "", ()) if n in mesh.axis_names)
        entries.append(names if len(names) > 1 else (names[0] if names else None))
    return PartitionSpec(*entries)


def named_sharding(
    name: str, shape: tuple[int, ...], axes: LogicalAxes, mesh: Mesh, rules: Rules = DEFAULT_RULES
) -> NamedSharding:
    """The sharding of one array, checked against its shape.

    Raises:
      ValueError: an axis cannot be split evenly; names the array, its shape and the axis.
    """
    spec = partition_spec(axes, mesh, rules)
    for size, axis, entry in zip(shape, axes, spec, strict=True):
        names = (entry,) if isinstance(entry, str) else (entry or ())
        parts = math.prod(mesh.shape[n] for n in names)
        if size % parts:
            raise ValueError(
                f"Array {name!r} of shape {shape}: axis {axis!r} of size {size} does not divide "
                f"over mesh axes {names} ({parts} parts). Change the mesh or the rule for {axis!r}."
            )
    return NamedSharding(mesh, spec)


def constrain(
    x: jax.Array, axes: LogicalAxes, mesh: Mesh | None, rules: Rules = DEFAULT_RULES
) -> jax.Array:
    """Pins an activation to its place on the mesh; without a mesh, returns it as it is."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(
        x, named_sharding("activation", x.shape, axes, mesh, rules)
    )
