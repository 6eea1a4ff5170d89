"""Slots on a mesh: the same rows, and caches that stay divided."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_2x2x2_mesh_of_fake_devices_equals_one_device():
    """In a process of its own: the number of devices is fixed when jax starts."""
    flags = "--xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sharded_engine.py"))],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.endswith("equal\n")
