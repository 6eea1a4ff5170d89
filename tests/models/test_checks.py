"""Ranges at fields: what is refused, and that the error names it."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import numpy as np
import pytest

from models.checks import Count, above, at_least, between, check, one_of, require


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: Annotated[float, above(0)] = 1.0
    cap: Annotated[float, at_least(0, "off")] = 0.0
    share: Annotated[float, between(0, 1, "(]")] = 1.0
    width: Count = 1
    limit: Annotated[int | None, at_least(2)] = None
    form: Annotated[str, one_of("loss", "advantage")] = "loss"
    plain: float = 0.0
    name: str = ""
    on: bool = False
    points: tuple[int, ...] = ()

    def __post_init__(self):
        check(self, "section")


REFUSED = [
    ("rate", 0, r"section\.rate=0 must be above 0\."),
    ("rate", math.nan, r"section\.rate=nan must be above 0\."),
    ("rate", math.inf, r"section\.rate=inf must be finite\."),
    ("rate", "fast", r"section\.rate='fast' must be a number\."),
    ("rate", True, r"section\.rate=True must be a number\."),
    ("rate", None, r"section\.rate=None must be a number\."),
    ("cap", -1, r"section\.cap=-1 must be 0 \(off\) or more\."),
    ("share", 0, r"section\.share=0 must lie in \(0, 1\]\."),
    ("share", math.nan, r"section\.share=nan must lie in \(0, 1\]\."),
    ("share", 1.5, r"section\.share=1\.5 must lie in"),
    ("width", 0, r"section\.width=0 must be at least 1\."),
    ("width", 1.5, r"section\.width=1\.5 must be a whole number\."),
    ("width", True, "whole"),
    ("limit", 1, r"section\.limit=1 must be at least 2\."),
    ("form", "los", r"section\.form='los': choose one of \('loss', 'advantage'\)\."),
    ("form", 3, "must be a string"),
    ("plain", math.nan, r"section\.plain=nan must be finite\."),
    ("plain", -math.inf, r"section\.plain=-inf must be finite\."),
    ("name", 3, r"section\.name=3 must be a string\."),
    ("on", "false", r"section\.on='false' must be True or False\."),
    ("on", 1, "True or False"),
]


@pytest.mark.parametrize(("field", "value", "message"), REFUSED)
def test_refuses_and_names_field_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", 1),
        ("rate", np.float32(0.5)),
        ("share", 1),
        ("width", np.int64(3)),
        ("limit", 2),
        ("limit", None),
        ("on", np.bool_(True)),
        ("points", (1, 2)),
        ("plain", -5),
    ],
)
def test_takes_what_fits(field, value):
    assert getattr(Settings(**{field: value}), field) == value


def test_without_a_section_the_field_alone_is_named():
    with pytest.raises(ValueError, match=r"^width=0 must be at least 1\."):
        require("width", 0, Count)
