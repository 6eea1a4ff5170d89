"""What slots gain over static batches: `python -m experiments.bench_engine`.

What is measured is said in `experiments/bench/engine.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is written."""

    rows: Annotated[int, Flag("texts")] = 192
    slots: Annotated[int, Flag("texts that are written at the same time")] = 16


def run(settings: Settings) -> None:
    """Prints what was measured."""
    from experiments.bench.engine import measure
    from experiments.machine.environment import environment

    measured = measure(settings.rows, settings.slots)
    where = environment()
    print(f"commit {where['commit']}, {where['device_count']} x {where['device']}")
    for name, value in measured.items():
        print(f"{name}: {value:.4g}")


main = command("bench_engine", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
