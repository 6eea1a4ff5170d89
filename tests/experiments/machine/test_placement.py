"""What a device holds, in words."""

from __future__ import annotations

import io

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from experiments.machine.placement import placement_table, placements, readable_bytes, total


def array(mesh, spec: PartitionSpec, *shape: int, dtype="float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def test_bytes_are_those_of_a_shard():
    mesh = AbstractMesh((4, 2, 1), ("data", "fsdp", "tensor"))
    tree = {
        "w": array(mesh, PartitionSpec("fsdp", "tensor"), 8, 6, dtype="bfloat16"),
        "rows": array(mesh, PartitionSpec(("data", "fsdp")), 16, 3),
        "scale": array(mesh, PartitionSpec(), 5),
    }
    found = {p.name: p for p in placements(tree)}
    assert (found["w"].bytes, found["w"].held, found["w"].axes) == (96, 48, (("fsdp",), ()))
    assert (found["rows"].bytes, found["rows"].held) == (192, 24)
    assert found["rows"].axes == (("data", "fsdp"), ())
    assert found["scale"].whole and not found["w"].whole
    assert total(list(found.values())) == (96 + 192 + 20, 48 + 24 + 20)


def test_the_table_says_what_is_divided_how_and_what_is_not():
    mesh = AbstractMesh((1, 2, 4), ("data", "fsdp", "tensor"))
    tree = {
        "layers": {
            "q": array(mesh, PartitionSpec(None, "fsdp", "tensor"), 2, 8, 4),
            "up": array(mesh, PartitionSpec(None, "fsdp", "tensor"), 2, 8, 16),
        },
        "norm": array(mesh, PartitionSpec(), 5),
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(placement_table(mesh, {"student": tree, "method": {}, "teacher": None}))
    text = console.export_text()
    assert "Arrays on 8 devices: data 1, fsdp 2, tensor 4" in text
    assert "_ x fsdp x tensor" in text and "q, up" in text
    assert "Whole on every device: 1 arrays, 20 B; the largest is student/norm [5], 20 B." in text
    assert "method" not in text and "teacher" not in text


def test_arrays_without_a_mesh_are_whole():
    (found,) = placements(jax.numpy.zeros((2, 3)))
    assert found.whole and found.bytes == 24
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert placements(jax.ShapeDtypeStruct(key.shape, key.dtype))[0].bytes == 8
    mesh = Mesh(np.asarray(jax.devices()).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
    assert placements(array(mesh, PartitionSpec("fsdp"), 4))[0].axes == ((),)


@pytest.mark.parametrize(
    ("n", "text"),
    [(12, "12 B"), (1500, "1.5 kB"), (8_589_934_592, "8.6 GB"), (2.5e12, "2,500 GB"), (999e6, "999 MB")],
)  # fmt: skip
def test_bytes_for_people(n, text):
    assert readable_bytes(n) == text
