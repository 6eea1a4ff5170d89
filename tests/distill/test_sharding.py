"""Meshes from sizes."""

from __future__ import annotations

import jax
import pytest

from distill.sharding import make_mesh


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
