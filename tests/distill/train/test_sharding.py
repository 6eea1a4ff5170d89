"""Meshes from sizes."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from distill.train.sharding import batch_multiple, batch_sharding, make_mesh


def test_one_device_needs_no_mesh():
    assert len(jax.devices()) == 1
    assert make_mesh({"data": -1, "fsdp": 1, "tensor": 1}) is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 2}, "does not fill"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0}, "at least 1"),
        ({"model": 1}, "the axes are"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


def test_the_rest_of_the_devices_goes_where_it_is_wanted():
    devices = [Device(i) for i in range(8)]
    mesh = make_mesh({"data": 2, "fsdp": -1}, devices)
    assert mesh is not None and dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    with pytest.raises(ValueError, match="does not fill the 8 devices"):
        make_mesh({"data": 3, "fsdp": -1}, devices)


class Device:
    """What a mesh wants of one."""

    platform, device_kind = "cpu", "none"

    def __init__(self, number: int):
        self.id, self.process_index = number, 0


def test_rows_divide_over_the_devices_along_the_batch():
    mesh = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    assert batch_multiple(mesh) == 8 and batch_multiple(None) == 1
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
