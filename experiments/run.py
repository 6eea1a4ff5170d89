"""Runs a config: it trains a student, and evaluates it before and after.

    python -m experiments.run --config configs/motab.py --workdir runs/motab

`--config FILE:ARG` picks a variant and `--config.FIELD=VALUE` sets a field. Running again on the
same workdir resumes. On SIGTERM or Ctrl-C it finishes the step, saves and exits with 75; on the
second it exits at once.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from experiments.command.command import command
from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import Flag
from experiments.command.process_flags import ProcessFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ConfigFlags, ProcessFlags):
    """What to run, and where."""

    workdir: Annotated[
        str | None, Flag("the run's directory; runs/CONFIG[-ARG] by default", "DIR")
    ] = None


def run(settings: Settings) -> None:
    """Runs the config."""
    from experiments.machine.compilation import keep_compiled
    from experiments.train import loop

    keep_compiled()
    settings.join()
    loop.run(settings.config.fields, settings.workdir or Path("runs") / settings.config.name)


main = command("run", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
