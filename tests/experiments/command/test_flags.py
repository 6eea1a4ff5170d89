"""A field that a config does not have is refused in one line, by every command that takes a config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "command",
    [
        "run",
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in ("synthesize", "compare", "exposure_sweep")
        ),
    ],
)
def test_an_unknown_field_is_one_line_and_no_traceback(command):
    finished = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", "--config", "configs/motab.py",
         "--config.motab.gama_0=1"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 1 and "Traceback" not in finished.stderr
    assert "sets a field that the config does not have" in finished.stderr
    assert "gama_0" in finished.stderr
