"""Sharded equals unsharded: trajectories, every gradient array, and parameters after three steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..fake_devices import MESHES, run_on_fake_devices

SCRIPT = Path(__file__).with_name("sharded_step.py")


@pytest.mark.slow
def test_a_2x2x2_mesh_of_fake_devices_equals_one_device():
    assert run_on_fake_devices(SCRIPT, "2x2x2").endswith("equal\n")


@pytest.mark.slow
def test_meshes_of_fake_devices_equal_one_device():
    assert run_on_fake_devices(SCRIPT, *MESHES, "2x2x2/2").endswith("equal\n")
