"""What lies where on a mesh: how every array is divided, and what a device holds of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from distill.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Placement:
    """One array.

    Attributes:
      axes: mesh axes that split each of its axes; () where none does.
      bytes: of the whole array; `held` of them on one device.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[tuple[str, ...], ...]
    bytes: int
    held: int

    @property
    def whole(self) -> bool:
        """Whether every device holds all of it."""
        return self.held == self.bytes


def placements(tree: Any) -> list[Placement]:
    """Of arrays, or of their `jax.ShapeDtypeStruct`s with shardings."""
    return [
        _placement(jax.tree_util.keystr(path, simple=True, separator="/"), x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _placement(name: str, x: Any) -> Placement:
    # Typed keys have a dtype that numpy does not know.
    size = 8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.dtype(x.dtype).itemsize
    axes: list[tuple[str, ...]] = [()] * len(x.shape)
    held = tuple(x.shape)
    if isinstance(x.sharding, NamedSharding):
        for i, entry in enumerate(x.sharding.spec):
            names = (entry,) if isinstance(entry, str) else tuple(entry or ())
            # An axis of one device splits nothing.
            axes[i] = tuple(n for n in names if x.sharding.mesh.shape[n] > 1)
    if x.sharding is not None:
        held = x.sharding.shard_shape(held)
    return Placement(
        name,
        tuple(x.shape),
        str(x.dtype),
        tuple(axes),
        math.prod(x.shape) * size,
        math.prod(held) * size,
    )


def state_groups(state: TrainState, teacher_params: Any) -> dict[str, Any]:
    """What lies on the devices throughout a run, by name."""
    return {
        "student": state.params,
        "optimiser": state.opt_state,
        "method": state.method_state,
        "teacher": teacher_params,
    }


def total(found: Sequence[Placement]) -> tuple[int, int]:
    """Bytes in all, and on one device."""
    return sum(p.bytes for p in found), sum(p.held for p in found)


def placement_table(mesh: Mesh, groups: Mapping[str, Any]) -> RenderableType:
    """How the arrays of every group are divided, alike ones in one line, and what a device holds.

    Args:
      groups: trees of arrays, or of their shapes with shardings, by name.
    """
    over = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    table = Table(
        box=box.SIMPLE_HEAD, title=f"Arrays on {mesh.size} devices: {over}", title_justify="left"
    )
    table.add_column("")
    table.add_column("divided over", overflow="fold")
    for name in ("arrays", "in all", "on a device"):
        table.add_column(name, justify="right")
    undivided: list[Placement] = []
    for group, tree in groups.items():
        found = placements(tree)
        if not found:
            continue
        table.add_row(group, "", str(len(found)), *map(readable_bytes, total(found)))
        kinds: dict[str, list[Placement]] = {}
        for p in found:
            kinds.setdefault(_kind(p), []).append(p)
        for kind, alike in sorted(kinds.items(), key=lambda item: -total(item[1])[0]):
            names = sorted({p.name.rsplit("/", 1)[-1] for p in alike})
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            table.add_row(f"  {shown}", kind, str(len(alike)), *map(readable_bytes, total(alike)))
        undivided += [dataclasses.replace(p, name=f"{group}/{p.name}") for p in found if p.whole]
    largest = max(undivided, key=lambda p: p.bytes, default=None)
    line = "  Every array is divided."
    if largest is not None:
        line = (
            f"  Whole on every device: {len(undivided)} arrays, "
            f"{readable_bytes(sum(p.bytes for p in undivided))}; the largest is {largest.name} "
            f"{list(largest.shape)}, {readable_bytes(largest.bytes)}."
        )
    return Group(table, line)


def _kind(p: Placement) -> str:
    """`_ x fsdp x tensor`: a mesh axis for every axis of the array."""
    if p.whole:
        return "nothing: whole on every device"
    return " x ".join("+".join(names) or "_" for names in p.axes)


def readable_bytes(n: float) -> str:
    """`8.6 GB`; a kB is 1,000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:,.0f} {unit}" if unit == "B" or n >= 100 else f"{n:,.1f} {unit}"
