"""Flags of the commands that run a study."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from experiments.command.config_file import ConfigFile
from experiments.command.flags import Flag
from experiments.machine.exit_codes import FAILED


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyFlags:
    """A part of a study, and where it is run."""

    config: Annotated[ConfigFile, Flag("a study, such as configs/studies/motab.py")]
    workdir: Annotated[Path, Flag("the study's directory", "DIR")]
    seeds: Annotated[
        tuple[int, ...] | None,
        Flag("which of the study's seeds; all by default", "SEED,...", separator=","),
    ] = None
    budget: Annotated[
        float | None, Flag("after so many minutes no further run is started", "MINUTES")
    ] = None

    @staticmethod
    def report(failed: Mapping[str, str]) -> int:
        """The exit code, once it is said which arms failed."""
        if not failed:
            return 0
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
        return FAILED
