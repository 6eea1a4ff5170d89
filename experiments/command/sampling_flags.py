"""How a command samples texts."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from experiments.command.flags import Flag
from models.checks import Count, Temperature, between, check


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """Settings of sampling; their defaults are those of MOTAB's evaluation.

    Raises:
      ValueError: one is out of range.
    """

    max_new_tokens: Annotated[Count, Flag("of a text, EOS included; longer ones are cut off")] = 512
    temperature: Annotated[Temperature, Flag("0 is greedy")] = 0.6
    top_p: Annotated[
        float, between(0, 1, "(]"), Flag("the most likely tokens with this probability are kept")
    ] = 0.95
    batch_size: Annotated[Count, Flag("samples that are written at the same time")] = 64
    seed: Annotated[int, Flag("of sampling")] = 0

    def __post_init__(self) -> None:
        check(self)
