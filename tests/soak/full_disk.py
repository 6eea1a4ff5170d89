"""A disk that fills up while a run is at work: `unshare -rm python -m tests.soak.full_disk DIR STEPS`.

In a mount namespace of its own, where an ordinary user may mount a small tmpfs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from .runs import ending, finish, start, whole_steps

SIZE = 64 * 2**20


def fill_up(directory: Path, steps: int) -> None:
    """Fills the disk at work, and before a start; makes room again; compares the end.

    Args:
      directory: holds the uninterrupted run in `whole`.

    Raises:
      AssertionError: something was not as it should be.
    """
    disk, log = directory / "disk", directory / "disk.log"
    disk.mkdir()
    log.unlink(missing_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
    workdir, ballast = disk / "run", disk / "ballast"
    process = start(workdir, steps, log)
    while not whole_steps(workdir):
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    fill(ballast, shutil.disk_usage(disk).free - 2**16)
    assert process.wait(timeout=600) == 1, log.read_text()
    text = log.read_text()
    assert "could not be written" in text and "No space left on device" in text, text
    saved = whole_steps(workdir)
    assert saved, "no checkpoint was left"
    assert finish(workdir, steps, log) == 1, log.read_text()
    assert "needs room for" in log.read_text()
    assert whole_steps(workdir) == saved
    ballast.unlink()
    assert finish(workdir, steps, log) == 0, log.read_text()
    wrong = ending(directory / "whole").differences(ending(workdir))
    assert not wrong, f"not as uninterrupted: {', '.join(wrong)}"


def fill(file: Path, size: int) -> None:
    with file.open("wb") as ballast:
        for _ in range(max(0, size) // 2**16):
            ballast.write(bytes(2**16))


if __name__ == "__main__":
    fill_up(Path(sys.argv[1]), int(sys.argv[2]))
