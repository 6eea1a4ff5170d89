"""Sharded equals unsharded, array by array, and so do micro-batches on a mesh."""

from __future__ import annotations

from pathlib import Path

from ..fake_devices import run_on_fake_devices

SCRIPT = Path(__file__).with_name("sharded_plans.py")


def test_a_2x2x2_mesh_of_fake_devices_in_micro_batches_equals_one_device_at_once():
    """Weights of groups whose rows lie in several parts, and a pull beside the surrogate."""
    assert run_on_fake_devices(SCRIPT, "2x2x2/2", "scope", "kdrl").endswith("equal\n")
