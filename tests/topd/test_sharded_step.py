"""Sharded equals unsharded: windows, plans, gradients, parameters and the buffer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_2x2x2_mesh_of_fake_devices_equals_one_device():
    """In a process of its own: the number of devices is fixed when jax starts.

    A fake device waits in a thread for each of its collectives that nothing orders: here there are
    several, more than threads on a machine of few cores, hence NPROC. Nothing is timed: level 0.
    """
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sharded_step.py"))],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "64"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.endswith("equal\n")
