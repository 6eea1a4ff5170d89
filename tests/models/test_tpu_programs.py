"""Programs for a TPU compile where there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_a_train_step_and_sampling_compile_for_a_tpu():
    script = Path(__file__).with_name("tpu_programs.py")
    finished = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "compiled" in finished.stdout
