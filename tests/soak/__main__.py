"""Interrupts and damages real runs: `python -m tests.soak --kills 50 --terms 10 [--directory DIR]`.

`--attack` instead tries hostile files, configs, data, models, arguments and answers, in a few
minutes, and prints the table of docs/reliability.md.

Ends with 0 where all of them went on to the very end of an uninterrupted run: same bits in
parameters and optimiser, same data, same metrics, same samples.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .attack import run_attacks
from .damage import REFUSED, SURVIVED, survive
from .kills import soak
from .runs import ROOT, Ending, start, whole_steps


def interrupted(directory: Path, steps: int) -> Path:
    """A run that SIGTERM ended in its middle, with two checkpoints or more."""
    workdir, log = directory / "interrupted", directory / "interrupted.log"
    process = start(workdir, steps, log)
    while len(whole_steps(workdir)) < 2:
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75, log.read_text()
    return workdir


def damage_all(directory: Path, steps: int, expected: Ending) -> None:
    """Every kind of damage, one after the other."""
    source = interrupted(directory, steps)
    for name in (*SURVIVED, *REFUSED):
        survive(name, source, directory / "damaged", steps, expected)
        print(f"{name}: {'survived' if name in SURVIVED else 'refused'}", flush=True)


def fill_disk(directory: Path, steps: int) -> str:
    """A full disk, where this user may make a small one; says how it went."""
    alone = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "not tried: no mount namespaces here"
    module = [sys.executable, "-m", "tests.soak.full_disk", str(directory), str(steps)]
    subprocess.run([*alone, *module], check=True, cwd=ROOT)
    return "survived"


def main() -> int:
    parser = argparse.ArgumentParser(description="Interrupts and damages real runs.")
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs (50)")
    parser.add_argument("--terms", type=int, default=10, help="SIGTERMs (10)")
    parser.add_argument("--steps", type=int, default=60, help="of a run (60)")
    parser.add_argument("--damage-steps", type=int, default=8, help="of a damaged run (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--directory", type=Path, help="a new one is made, and kept, by default")
    parser.add_argument("--attack", action="store_true", help="hostile input instead of signals")
    parser.add_argument("--only", default="", help="with --attack: one class, by its beginning")
    flags = parser.parse_args()
    directory = flags.directory or Path(tempfile.mkdtemp(prefix="soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    if flags.attack:
        wrong = run_attacks(directory, flags.seed, flags.only)
        print(f"{len(wrong)} tries did not survive.")
        return 1 if wrong else 0
    began = time.monotonic()

    def report(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    tally, _ = soak(directory, flags.kills, flags.terms, flags.steps, flags.seed, report)
    print(f"signals: {tally}", flush=True)
    small = directory / "damage"
    small.mkdir()
    _, expected = soak(small, 0, 0, flags.damage_steps, report=report)
    damage_all(small, flags.damage_steps, expected)
    print(f"a full disk: {fill_disk(small, flags.damage_steps)}", flush=True)
    report(f"done; logs are in {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
