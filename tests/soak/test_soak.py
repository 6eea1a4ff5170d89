"""Three kills; the rest of the soak is `python -m tests.soak`."""

from __future__ import annotations

import signal
import time

import pytest

from .__main__ import fill_disk, interrupted
from .damage import REFUSED, SURVIVED, survive
from .runs import ending, finish, start, steps_logged, whole_steps

STEPS = 6
NO_TEST = {"data.test.name": ""}


def run_whole(directory, more):
    log = directory / "whole.log"
    assert finish(directory / "whole", STEPS, log, more) == 0, log.read_text()
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, in a directory for others."""
    return run_whole(tmp_path_factory.mktemp("soak"), {})


def test_three_kills(tmp_path):
    """While it starts, between checkpoints, and while one is being written or has just been."""
    workdir, log = tmp_path / "killed", tmp_path / "killed.log"
    for there in (
        lambda: (workdir / "config.json").exists(),
        lambda: len(steps_logged(workdir)) >= 3,
        lambda: 4 in whole_steps(workdir) or list((workdir / "checkpoints").glob("4.*")),
    ):
        process = start(workdir, STEPS, log, NO_TEST)
        while not there():
            assert process.poll() is None, log.read_text()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (workdir / "results.json").exists()
    assert finish(workdir, STEPS, log, NO_TEST) == 0, log.read_text()
    assert "Resuming after step" in log.read_text()
    whole = run_whole(tmp_path, NO_TEST) / "whole"
    assert ending(whole).differences(ending(workdir)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SURVIVED, *REFUSED])
def test_damage(name, whole, tmp_path):
    source = whole / "interrupted"
    if not source.exists():
        interrupted(whole, STEPS)
    survive(name, source, tmp_path / "damaged", STEPS, ending(whole / "whole"))


@pytest.mark.slow
def test_a_full_disk(whole):
    said = fill_disk(whole, STEPS)
    if said != "survived":
        pytest.skip(said)
