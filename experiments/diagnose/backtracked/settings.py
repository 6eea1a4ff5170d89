"""What the correction of breached solutions may be told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.command.flags import Flag
from experiments.diagnose.monitored.settings import ROLLOUTS, Alpha
from models.checks import Count, Share, at_least, check

LINES, RESULTS, PICTURE = "corrections.jsonl", "corrections.json", "corrections.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BacktrackedSettings:
    """Which breached solutions are written anew.

    Raises:
      ValueError: a number is out of range.
    """

    rollouts: Annotated[Path, Flag(f"directory that holds {ROLLOUTS}; resumes there", "DIR")]
    gamma_0: Annotated[Share, Flag("of the boundary that solutions breach")] = 0.3
    alpha: Alpha = 1.0
    corrections: Annotated[Count, Flag("texts of each writer from each start")] = 2
    batch_size: Annotated[Count, Flag("texts that are written at the same time")] = 16
    seed: Annotated[int, at_least(0), Flag("of sampling, and of the random starts")] = 0
    student: Annotated[str, Flag("where it is, if it was moved")] = ""
    teacher: Annotated[str, Flag("where it is, if it was moved")] = ""

    def __post_init__(self) -> None:
        check(self)
