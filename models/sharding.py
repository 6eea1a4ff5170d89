"""Which array axis lies on which mesh axis: one table of rules, by logical name."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TreeT = TypeVar("TreeT")

Rules = tuple[tuple[str, tuple[str, ...]], ...]
LogicalAxes = tuple[str | None, ...]

# Every mesh has these axes, in this order.
AXES = ("data", "fsdp", "tensor")

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


def batch_multiple(mesh: Mesh | None, rules: Rules = DEFAULT_RULES) -> int:
    """Rows are held in multiples of this: the devices along the batch."""
    sizes = {} if mesh is None else mesh.shape
    return math.prod(sizes.get(axis, 1) for axis in dict(rules)["batch"])


def named_sharding(
    name: str, shape: tuple[int, ...], axes: LogicalAxes, mesh: Mesh, rules: Rules = DEFAULT_RULES
) -> NamedSharding:
    """The sharding of one array, checked against its shape.

    Raises:
      ValueError: an axis cannot be split evenly, or two axes lie on one mesh axis; names the array,
        its shape and the axis.
    """
    spec = partition_spec(axes, mesh, rules)
    taken: dict[str, str | None] = {}
    for size, axis, entry in zip(shape, axes, spec, strict=True):
        names = (entry,) if isinstance(entry, str) else (entry or ())
        parts = math.prod(mesh.shape[n] for n in names)
        if size % parts:
            raise ValueError(
                f"Array {name!r} of shape {shape}: axis {axis!r} of size {size} does not divide "
                f"over mesh axes {names} ({parts} parts). Change the mesh or the rule for {axis!r}."
            )
        for n in names:
            if n in taken:
                raise ValueError(
                    f"Array {name!r} of shape {shape}: the rules put both axis {taken[n]!r} and "
                    f"axis {axis!r} on mesh axis {n!r}. Change one of them."
                )
            taken[n] = axis
    return NamedSharding(mesh, spec)


def constrain(
    x: jax.Array,
    axes: LogicalAxes,
    mesh: Mesh | None,
    rules: Rules = DEFAULT_RULES,
    name: str = "activation",
) -> jax.Array:
    """Pins x [...] with an axis by each of `axes` to its place on the mesh, where there is one."""
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, named_sharding(name, x.shape, axes, mesh, rules))


def constrain_rows(
    tree: TreeT, mesh: Mesh | None, rules: Rules = DEFAULT_RULES, name: str = "rows"
) -> TreeT:
    """Pins a tree of arrays with rows first: rows over the batch's mesh axes, all else whole."""

    def place(x: Any) -> Any:
        return constrain(x, ("batch",) + (None,) * (x.ndim - 1), mesh, rules, name)

    return tree if mesh is None else jax.tree.map(place, tree)
