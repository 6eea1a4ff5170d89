"""What a diagnosis may be told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.command.flags import Flag
from experiments.command.prompt_flags import PromptFlags
from experiments.command.sampling_flags import SamplingFlags
from models.checks import Count, at_least

RESULTS, PICTURE, NEAR_FUTURE = "diagnose.json", "diagnose.png", "near_future.png"
_MODEL = "embedded:student, :teacher, :reader or a directory"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnosisOptions(SamplingFlags):
    """How two models in memory are diagnosed; `batch_size` counts pairs of samples."""

    n: Annotated[Count, Flag("samples of each model per problem")] = 4
    bin: Annotated[Count, Flag("token positions per bin")] = 16
    min_problems: Annotated[int, at_least(2), Flag("bins with fewer are left out")] = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairDiagnosis(DiagnosisOptions, PromptFlags):
    """A whole diagnosis: of which pair, on what, and where its results go."""

    student: Annotated[str, Flag(_MODEL)]
    teacher: Annotated[str, Flag(_MODEL)]
    data: Annotated[str, Flag("a data set by name, or a .jsonl or .json file")]
    out: Annotated[Path, Flag(f"directory for {RESULTS} and {PICTURE}", "DIR")]
    size: Annotated[
        int, at_least(0, "all"), Flag("problems at most, from the first; 0 for all")
    ] = 0
    window: Annotated[
        int, at_least(0, "none"), Flag("tokens of near futures to compare; 0 for none")
    ] = 0
    windows_per_text: Annotated[Count, Flag("windows of each kind, at most")] = 2
