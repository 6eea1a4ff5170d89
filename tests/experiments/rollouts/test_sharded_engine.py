"""Slots on a mesh: the same rows, and caches that stay divided."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...fake_devices import run_on_fake_devices


@pytest.mark.slow
def test_a_2x2x2_mesh_of_fake_devices_equals_one_device():
    """In a process of its own: the number of devices is fixed when jax starts."""
    out = run_on_fake_devices(Path(__file__).with_name("sharded_engine.py"))
    assert out.endswith("equal\n")
