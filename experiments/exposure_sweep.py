"""ATESD's Figure 2 for any model: what the exposure of the teacher does.

    python -m experiments.exposure_sweep --config configs/studies/atesd.py --workdir DIR

Trains the arms that the study names in `exposures`, by the study's rules and resumably, like
`experiments.compare`; then writes sweep.md, sweep.json and sweep.png. For a model of your own set
`--config.shared.student.path`, and the data, template and widths in `configs/atesd.py`.
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

    problems: Annotated[int, Flag("held-out problems that teachers are compared on")] = 256


def run(settings: Settings) -> int:
    """Runs the sweep; 1 where an arm failed.

    Raises:
      ValueError: the study names no exposures.
    """
    from experiments.compare.settings import read_study

    study = read_study(settings.config.fields)
    if not study.exposures:
        raise ValueError("The study names no `exposures`: arms that differ in controller.fixed.")
    from experiments.compare.execute import compare
    from experiments.compare.sweep.picture import write_sweep
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible

    called = shlex.join(["python", "-m", "experiments.exposure_sweep", *sys.argv[1:]])
    keep_compiled()
    seeds, workdir = settings.seeds, settings.workdir
    with interruptible():
        failed = compare(
            study,
            workdir,
            arms=study.exposures,
            seeds=seeds,
            budget=settings.budget,
            command=called,
        )
        written = write_sweep(study, workdir, seeds, settings.problems, called)
    print(f"Sweep: {written}")
    return settings.report(failed)


main = command("exposure_sweep", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
