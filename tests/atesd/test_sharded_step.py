"""Sharded equals unsharded: gradients, parameters, the averaged teacher and the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..fake_devices import MESHES, run_on_fake_devices


@pytest.mark.slow
def test_meshes_of_fake_devices_equal_one_device():
    script = Path(__file__).with_name("sharded_step.py")
    assert run_on_fake_devices(script, *MESHES, "2x2x2/2").endswith("equal\n")
