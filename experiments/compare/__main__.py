"""Runs a study: every arm with every seed, and a table and pictures of all of them.

    python -m experiments.compare --config configs/studies/motab.py --workdir DIR

The same command again goes on where it was interrupted, and does no finished run again;
`--budget 0` only writes the table. It exits with 1 where an arm failed, and with 75 when SIGTERM or
Ctrl-C interrupted it; the run under way is saved, and the table shows what there is.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.command.study_flags import StudyFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(StudyFlags):
    """Which part of which study to run, and where."""

    arms: Annotated[
        tuple[str, ...] | None,
        Flag("which of the study's arms; all by default", "ARM,...", separator=","),
    ] = None


def run(settings: Settings) -> int:
    """Runs the study; 1 where an arm failed."""
    from experiments.compare.execute import compare
    from experiments.compare.settings import read_study
    from experiments.machine.compilation import keep_compiled

    keep_compiled()
    failed = compare(
        read_study(settings.config.fields),
        settings.workdir,
        arms=settings.arms,
        seeds=settings.seeds,
        budget=settings.budget,
        command=shlex.join(["python", "-m", "experiments.compare", *sys.argv[1:]]),
    )
    return settings.report(failed)


main = command("compare", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
