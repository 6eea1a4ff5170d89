"""What scripts on fake devices share: a mesh against one device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill.train.sharding import AXES, make_mesh

# Arrays of this many numbers and more must be divided. The tiny models' norm scales are smaller.
LARGEST_WHOLE = 512


def mesh_of(text: str) -> Mesh:
    """`2x2x2`: devices along data, fsdp and tensor."""
    sizes = dict(zip(AXES, map(int, text.split("x")), strict=True))
    mesh = make_mesh(sizes)
    assert mesh is not None and len(jax.devices()) == 8
    return mesh


def assert_close(ours: Any, expected: Any, where: str, relative: float = 1e-5) -> float:
    """Every array is the other one, up to `relative` of its largest number; the worst difference."""
    worst = 0.0
    pairs = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(ours), strict=True)
    for (path, x), y in pairs:
        name = where + jax.tree_util.keystr(path)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape, name
        if x.dtype.kind != "f":
            np.testing.assert_array_equal(y, x, name)
            continue
        error = float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))
        assert error < relative, (name, error)
        worst = max(worst, error)
    return worst


def assert_divided(compiled: Any, inputs: Any, mesh: Mesh, least: int = 40) -> None:
    """No large array goes into a compiled program, or comes out of it, whole on every device.

    On a mesh of `data` alone that is what parameters are: there is nothing to look at.

    Args:
      inputs: what it was lowered for.
      least: large arrays that there must be.
    """
    if mesh.size == mesh.shape["data"]:
        return
    outputs = compiled.out_info
    seen = 0
    for kind, arrays, places in (
        ("input", (inputs, {}), compiled.input_shardings),
        ("output", outputs, compiled.output_shardings),
    ):
        # Inputs that the program does not read have no sharding.
        shapes = jax.tree_util.tree_leaves_with_path(arrays, is_leaf=_absent)
        found = jax.tree.leaves(places, is_leaf=_absent)
        for (path, x), place in zip(shapes, found, strict=True):
            if place is None or np.prod(x.shape) < LARGEST_WHOLE:
                continue
            seen += 1
            name = f"{dict(mesh.shape)}, {kind}{jax.tree_util.keystr(path)} {x.shape}"
            assert not place.is_fully_replicated, name
    assert seen >= least, seen


def _absent(x: Any) -> bool:
    return x is None


def assert_placed(arrays: Any, places: Any, where: str) -> None:
    """Every array lies where it should."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(arrays), jax.tree.leaves(places), strict=True)
    for (path, x), place in pairs:
        name = where + jax.tree_util.keystr(path)
        assert x.sharding.is_equivalent_to(place, x.ndim), (name, x.sharding, place)
