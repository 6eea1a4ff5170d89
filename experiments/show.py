"""Sampled trajectories of a run in the terminal:

    python -m experiments.show WORKDIR

Colours say who wrote the text: the student, the student where it erred, the revision text,
the teacher. Below stand V and its boundary gamma of every step. Without colours (`NO_COLOR=1`, or a
file) parts are marked by name. Only reads the workdir.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Which trajectories of which run."""

    workdir: Annotated[Path, Flag("the run's directory", positional=True)]
    n: Annotated[int, Flag("how many, from the last; 0 for all")] = 4
    step: Annotated[int | None, Flag("those sampled at this update")] = None
    breached: Annotated[bool, Flag("those that the monitor sent back")] = False


def run(settings: Settings) -> None:
    """Shows them."""
    from rich.console import Console

    from experiments.report.shown_trajectories import select, show
    from experiments.workdir.results import read_run

    console = Console()
    records = read_run(settings.workdir).all_trajectories
    chosen = select(records, settings.n, settings.step, settings.breached)
    show(chosen, console, console.color_system is not None and "NO_COLOR" not in os.environ)


main = command("show", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
