"""Sharded equals unsharded for OPD: trajectories, every gradient array, parameters after three steps;
and so do micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...fake_devices import MESHES, run_on_fake_devices

SCRIPT = Path(__file__).with_name("sharded_step.py")


def test_a_1x2x4_mesh_of_fake_devices_in_micro_batches_equals_one_device_at_once():
    assert run_on_fake_devices(SCRIPT, "1x2x4/2").endswith("equal\n")


@pytest.mark.slow
def test_meshes_of_fake_devices_equal_one_device():
    parts = [f"{mesh}/2" for mesh in MESHES]
    assert run_on_fake_devices(SCRIPT, *MESHES, *parts).endswith("equal\n")
