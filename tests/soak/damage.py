"""Files of an interrupted run, cut short, changed or deleted; what the next start makes of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .runs import Ending, ending, finish, whole_steps


def _largest(workdir: Path) -> Path:
    """The largest file of array data in the latest checkpoint."""
    state = workdir / "checkpoints" / str(whole_steps(workdir)[-1]) / "state"
    return max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def _latest(workdir: Path, *parts: str) -> Path:
    return workdir.joinpath("checkpoints", str(whole_steps(workdir)[-1]), *parts)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def _tear(file: Path) -> None:
    with file.open("ab") as log:
        log.write(b'{"step": 99, "kind": "tr')


def _damage_all(workdir: Path) -> None:
    for step in whole_steps(workdir):
        shutil.rmtree(workdir / "checkpoints" / str(step) / "state")


def _measured(workdir: Path) -> Path:
    """The accuracy of a validated checkpoint; one that a signal asked for may have none."""
    return max(workdir.glob("checkpoints/*/metrics/metrics"))


SKIPPED = r"Skipping the damaged checkpoint \S+/(\d+), now \1\.corrupt"
# What is done to a run's directory, and what its next start says, besides going on to the same end.
SURVIVED: dict[str, tuple[Callable[[Path], None], str]] = {
    "array data cut short": (lambda w: cut(_largest(w)), SKIPPED),
    "a bit flipped in array data": (lambda w: flip(_largest(w)), SKIPPED),
    "array data deleted": (lambda w: _largest(w).unlink(), SKIPPED),
    "a bit flipped in the host's state": (lambda w: flip(_latest(w, "run", "metadata")), SKIPPED),
    "the host's state deleted": (lambda w: shutil.rmtree(_latest(w, "run")), SKIPPED),
    "a bit flipped in the accuracy": (lambda w: flip(_measured(w)), SKIPPED),
    "every checkpoint damaged": (_damage_all, SKIPPED),
    "the log's last line torn": (lambda w: _tear(w / "metrics.jsonl"), r"Left out line \d+ of "),
    "trajectories torn": (lambda w: _tear(w / "trajectories.jsonl"), r"Left out line \d+ of "),
}
# What cannot be gone on from: the start ends with 1 and this.
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "the config cut short": (lambda w: cut(w / "config.json"), r"config\.json is not JSON"),
    "the config deleted": (lambda w: (w / "config.json").unlink(), r"but no config\.json"),
}


def survive(name: str, interrupted: Path, directory: Path, steps: int, expected: Ending) -> None:
    """Damages a copy of an interrupted run and goes on with it.

    Raises:
      AssertionError: it did not end as it should.
    """
    do, says = {**SURVIVED, **REFUSED}[name]
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(interrupted, directory)
    do(directory)
    log = directory.with_suffix(".log")
    log.unlink(missing_ok=True)
    code = finish(directory, steps, log)
    text = " ".join(log.read_text("utf-8").split())
    assert re.search(says, text), text
    if name in REFUSED:
        assert code == 1, text
        return
    assert code == 0, text
    wrong = expected.differences(ending(directory))
    assert not wrong, f"{name}: not as uninterrupted: {', '.join(wrong)}"
