"""Signals and chunked losses on a mesh: values and gradients equal one device's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "script", [pytest.param("sharded_signal.py", marks=pytest.mark.slow), "sharded_chunked.py"]
)
def test_a_2x2x2_mesh_of_fake_devices_equals_one_device(script):
    """In a process of its own: the number of devices is fixed when jax starts."""
    flags = "--xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script))],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.endswith("equal\n")
