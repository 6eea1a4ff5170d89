"""Every command of README and docs is run as its smoke variant, or is said to need hardware."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .documents import PAGES, ROOT, commands
from .smoke_variants import needs, smoke_variant

COMMANDS = list({" ".join(c): c for page in PAGES for c in commands(page)}.values())
VARIANTS = [(c, smoke_variant(c, Path("WORKDIR"), Path("OUT"))) for c in COMMANDS if not needs(c)]
SMALL = {" ".join(variant): command for command, variant in VARIANTS if variant is not None}


def execute(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )


def test_there_are_commands_and_most_of_them_can_be_run():
    assert len(COMMANDS) > 20
    assert len(SMALL) > 15


def test_of_every_command_it_is_said_how_it_is_tried():
    unknown = [" ".join(command) for command, variant in VARIANTS if variant is None]
    assert not unknown, (
        f"tests/smoke_variants.py does not say how to run these on little: {unknown}"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run that the commands look at."""
    workdir = tmp_path_factory.mktemp("runs") / "motab"
    arguments = ["-m", "experiments.run", "--config", "configs/motab.py:smoke"]
    done = execute([*arguments, "--workdir", str(workdir)], ROOT)
    assert done.returncode == 0, done.stdout
    score = ["python", "-m", "experiments.diagnose.monitored.score"]
    arguments = smoke_variant(score, workdir, workdir.with_name("motab-scored"))
    assert arguments is not None
    done = execute(arguments, ROOT)
    assert done.returncode == 0, done.stdout
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("shown", SMALL)
def test_a_command_runs(shown, finished, tmp_path):
    arguments = smoke_variant(SMALL[shown], finished, tmp_path / "out")
    assert arguments is not None
    done = execute(arguments, ROOT)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout


def test_the_main_jobs_run_in_full_every_night():
    nightly = (ROOT / ".ci" / "nightly").read_text()
    for config in ("configs/motab.py", "configs/atesd.py", "configs/topd.py"):
        assert f"python -m experiments.run --config {config} --workdir" in nightly
