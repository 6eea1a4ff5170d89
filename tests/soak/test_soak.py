"""Three kills; the rest of the soak is `python -m tests.soak`."""

from __future__ import annotations

import signal
import time

import pytest

from .runs import ending, finish, start, steps_logged, whole_steps

STEPS = 6
NO_TEST = {"data.test.name": ""}


@pytest.mark.slow
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
    whole = tmp_path / "whole"
    assert finish(whole, STEPS, log, NO_TEST) == 0, log.read_text()
    assert ending(whole).differences(ending(workdir)) == []
