"""Signals at random moments of a run, until so many have struck; then the run to its end."""

from __future__ import annotations

import collections
import dataclasses
import random
import signal
import subprocess
import time
from pathlib import Path

from experiments.machine.exit_codes import RESUMABLE

from .runs import EVERY, Ending, ending, finish, resumed_at, start, steps_logged, whole_steps

# Half of the signals strike at any moment of a process's first seconds, imports, loading and
# compilation included; half once it is at work, within so many.
_LIFE, _AT_WORK = 25.0, 4.0


@dataclasses.dataclass
class Tally:
    """What was done and seen.

    Attributes:
      struck: processes that a signal ended, by its name.
      phases: how many SIGKILLs struck before a process was at work, at work, or evaluating.
      while_saving: SIGKILLs that left an unfinished checkpoint behind.
      saved: SIGTERMs upon which the process saved its step and said so (exit code 75).
      early: SIGTERMs before the process could do anything but end.
      most_lost: most steps that one SIGKILL cost.
      runs: runs brought to their end, each the same as the uninterrupted one.
    """

    struck: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    phases: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    while_saving: int = 0
    saved: int = 0
    early: int = 0
    most_lost: int = 0
    runs: int = 0


def soak(
    directory: Path, kills: int, terms: int, steps: int, seed: int = 0, report=print
) -> tuple[Tally, Ending]:
    """Interrupts runs of `steps` steps and compares each, once ended, with an uninterrupted one.

    Raises:
      AssertionError: something did not survive as it should.
    """
    whole = directory / "whole"
    began = time.monotonic()
    assert finish(whole, steps, directory / "whole.log") == 0, (directory / "whole.log").read_text()
    expected, seconds = ending(whole), time.monotonic() - began
    report(f"uninterrupted: {steps} steps in {seconds:.0f} s")
    tally, chance = Tally(), random.Random(seed)
    numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    chance.shuffle(numbers)
    while numbers:
        workdir = directory / f"run-{tally.runs}"
        log = directory / f"run-{tally.runs}.log"
        while numbers and not (workdir / "results.json").exists():
            if _strike(workdir, steps, log, numbers[-1], chance, tally):
                numbers.pop()
                report(f"{len(numbers)} to go; checkpoints {whole_steps(workdir)}")
        assert finish(workdir, steps, log) == 0, log.read_text()
        wrong = expected.differences(ending(workdir))
        assert not wrong, f"{workdir}: not as uninterrupted: {', '.join(wrong)}"
        tally.runs += 1
        report(f"run {tally.runs} ended as the uninterrupted one; so far {dict(tally.struck)}")
    return tally, expected


def _strike(
    workdir: Path,
    steps: int,
    log: Path,
    number: signal.Signals,
    chance: random.Random,
    tally: Tally,
) -> bool:
    """Starts the run, or goes on with it, and sends a signal; returns whether that struck."""
    before, resumes = steps_logged(workdir)[-1:], len(resumed_at(log)) if log.exists() else 0
    process = start(workdir, steps, log)
    try:
        if chance.random() < 0.5:
            _wait(process, chance.uniform(0, _LIFE))
        else:
            while process.poll() is None and not _at_work(workdir, log, resumes, before):
                time.sleep(0.005)
            _wait(process, chance.uniform(0, _AT_WORK))
        if process.poll() is not None:  # it was done already
            assert process.returncode == 0, log.read_text()
            return False
        process.send_signal(number)
        code = process.wait(timeout=300)
    finally:
        process.kill()
        process.wait()
    if code == 0:  # the signal came as it was ending
        return False
    tally.struck[number.name] += 1
    text = log.read_text("utf-8")
    if number == signal.SIGTERM:
        assert code in (RESUMABLE, -number), text
        tally.saved += code == RESUMABLE
        tally.early += code == -number
        assert (code == RESUMABLE) <= ("The same command goes on from there." in text)
        return True
    assert code == -number, text
    went_on = len(resumed_at(log)) > resumes
    logged = steps_logged(workdir)[-1:]
    at_work = logged != before or went_on
    tally.phases["at work" if at_work else "starting"] += 1
    unfinished = list((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"))
    tally.while_saving += bool(unfinished)
    saved = whole_steps(workdir)[-1:] or [0]
    lost = max(0, (logged or [0])[0] - saved[0])
    # The steps since the last save, and those of a save that was still under way.
    assert lost <= 2 * EVERY, (lost, logged, saved)
    tally.most_lost = max(tally.most_lost, lost)
    return True


def _at_work(workdir: Path, log: Path, resumes: int, before: list[int]) -> bool:
    return len(resumed_at(log)) > resumes or steps_logged(workdir)[-1:] not in (before, [])


def _wait(process: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
