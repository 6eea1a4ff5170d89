"""Programs for a TPU compile where there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed"),
]


def test_rollouts_scoring_train_steps_and_the_kernel_compile_for_a_tpu():
    script = Path(__file__).with_name("tpu_programs.py")
    finished = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=900, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "compiled" in finished.stdout


def test_a_plan_for_a_topology():
    """Chips of 16 GB; the embedded models' heads are too narrow for the kernel."""
    command = [
        sys.executable, "-m", "experiments.plan", "--config=configs/opd.py", "--topology=v5e:2x2",
        "--mesh=data=-1,tensor=2",
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "Arrays on 4 devices: data 2, fsdp 1, tensor 2" in finished.stdout
    assert "The train step fits in 16 GB." in finished.stdout
    assert "FLOPs" in finished.stdout and "collectives: " in finished.stdout
