"""What an evaluation may be told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.command.flags import Flag
from experiments.command.prompt_flags import PromptFlags
from experiments.command.sampling_flags import SamplingFlags
from experiments.text.final_answer import MODES
from models.checks import Count, at_least

RESULTS, SAMPLES = "results.json", "samples.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions(SamplingFlags):
    """How a model is evaluated on problems that are there."""

    n: Annotated[Count, Flag("samples per problem")] = 8
    top_k: Annotated[int, at_least(0, "off"), Flag("the most likely tokens kept; 0 is off")] = 0
    answer: Annotated[
        str, Flag("how final answers are found; as data sets say by default", choices=MODES)
    ] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEvaluation(EvaluationOptions, PromptFlags):
    """A whole evaluation: of which model, on what, and where its results go."""

    model: Annotated[str, Flag("embedded:teacher, :student, :reader or a directory")]
    data: Annotated[
        tuple[str, ...], Flag("data sets by name, NAME=PATH for a copy, or path", "DATA")
    ]
    fields: Annotated[tuple[str, ...], Flag("as data.test.fields in a config", "FIELD=NAME")] = ()
    size: Annotated[int, at_least(0, "all"), Flag("problems of each at most; 0 for all")] = 0
    out: Annotated[Path | None, Flag(f"directory for {RESULTS} and {SAMPLES}; resumes", "DIR")] = (
        None
    )
