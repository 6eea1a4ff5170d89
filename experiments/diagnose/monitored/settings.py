"""What scoring may be told, and the figures that are made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.command.flags import Flag
from experiments.command.prompt_flags import PromptFlags
from experiments.text.final_answer import MODES
from models.checks import Count, Share, Temperature, at_least, check, require
from models.dtypes import DTYPES

ROLLOUTS, RESULTS, PICTURE, LIST = "rollouts.jsonl", "monitor.json", "monitor.png", "breached.md"
_MODEL = "embedded:student, :teacher, :reader or a directory"
Alpha = Annotated[float, at_least(0), Flag("of the boundary gamma_0 exp(-alpha H)")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreSettings(PromptFlags):
    """Which pair writes and scores what, and where it is kept.

    Raises:
      ValueError: a number is out of range, or the delimiter is empty.
    """

    student: Annotated[str, Flag(_MODEL)]
    teacher: Annotated[str, Flag(_MODEL)]
    data: Annotated[str, Flag("a data set by name, or a .jsonl or .json file; with answers")]
    out: Annotated[Path, Flag(f"directory for {ROLLOUTS}; resumes", "DIR")]
    size: Annotated[
        int, at_least(0, "all"), Flag("problems at most, from the first; 0 for all")
    ] = 0
    n: Annotated[Count, Flag("solutions of a problem")] = 4
    delimiter: Annotated[str, Flag(r"text that ends a step; \n stands for a line end")] = r".\n\n"
    max_new_tokens: Annotated[
        Count, Flag("of a solution, EOS included; longer ones are cut off")
    ] = 512
    temperature: Annotated[Temperature, Flag("of the student's sampling; 0 is greedy")] = 0.6
    batch_size: Annotated[Count, Flag("solutions that are written at the same time")] = 16
    chunk: Annotated[Count, Flag("tokens between two looks of the teacher")] = 32
    seed: Annotated[int, Flag("of sampling")] = 0
    teacher_dtype: Annotated[
        str | None, Flag("of the teacher's weights; as --dtype by default", choices=DTYPES)
    ] = None
    answer: Annotated[
        str, Flag("how final answers are found; as the data set says by default", choices=MODES)
    ] = ""

    def __post_init__(self) -> None:
        check(self)
        if not self.delimiter:
            raise ValueError("--delimiter is empty; give the text that ends a step.")

    @property
    def delimiter_text(self) -> str:
        """The delimiter with its line ends."""
        return self.delimiter.replace(r"\n", "\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """Which figures are made of which scored solutions.

    Raises:
      ValueError: a number is out of range.
    """

    rollouts: Annotated[Path, Flag(f"directory that holds {ROLLOUTS}; figures go there", "DIR")]
    alpha: Alpha = 1.0
    gamma_0: Annotated[Share, Flag("that breach steps, depths and the list are shown at")] = 0.3
    grid: Annotated[
        tuple[Share, ...], Flag("values of gamma_0 to compare", "NUMBERS", separator=",")
    ] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    bins: Annotated[Count, Flag("of the relative step position")] = 10
    show: Annotated[int, at_least(0, "none"), Flag(f"breached solutions to list in {LIST}")] = 0
    seed: Annotated[int, at_least(0), Flag("of the choice of these")] = 0

    def __post_init__(self) -> None:
        check(self)
        if not self.grid:
            raise ValueError("--grid is empty; give values of gamma_0, such as 0.1,0.3,0.5.")
        for gamma_0 in self.grid:
            require("--grid", gamma_0, Share)
