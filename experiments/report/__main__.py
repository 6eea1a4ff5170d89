"""One HTML page about one run or several:

    python -m experiments.report WORKDIR... --out FILE.html

Config, scores, curves, what the monitor saw, exposure, sampled trajectories and graded samples;
several workdirs side by side. The page needs nothing but itself: no script, no font, no network.
Only reads the workdirs, and so may be called while a run goes on. `experiments.evaluate --out`
directories may be given as well, and appear among the scores.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag

PAGE = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to report on, and how much of it."""

    workdirs: Annotated[tuple[Path, ...], Flag("of runs", "WORKDIR", positional=True)]
    out: Annotated[
        Path | None,
        Flag(f"the page; WORKDIR/{PAGE} where there is a single workdir", "FILE.html"),
    ] = None
    trajectories: Annotated[int, Flag("sampled trajectories shown of a run")] = 12
    samples: Annotated[int, Flag("graded samples shown of a run, after training")] = 6

    def __post_init__(self) -> None:
        if self.out is None and len(self.workdirs) > 1:
            raise ValueError("With several workdirs give --out FILE.html.")


def run(settings: Settings) -> None:
    """Writes the page."""
    from experiments.report.page import make_page
    from experiments.workdir.results import read_run
    from experiments.workdir.workdir import write_atomic

    runs = [read_run(directory) for directory in settings.workdirs]
    out = settings.out or runs[0].directory / PAGE
    page = make_page(runs, settings.trajectories, settings.samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page.encode("utf-8"))
    print(f"{out}: {len(page.encode()) / 1e6:.1f} MB")


main = command("report", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
