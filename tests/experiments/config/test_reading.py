"""Dataclasses from mappings: known fields, types, and whole paths in errors."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest
from ml_collections import ConfigDict

from experiments.config.reading import read_section
from models.checks import Count, at_least, check


@dataclasses.dataclass(frozen=True)
class Paint:
    colour: str
    coats: Count = 2
    points: tuple[tuple[int, float], ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self):
        check(self, "paint")
        if self.coats > 9:
            raise ValueError(f"paint.coats={self.coats} never dries.")


@dataclasses.dataclass(frozen=True)
class House:
    paint: Paint
    roof: Paint | None = None
    floors: Annotated[int, at_least(1)] = 1


def test_fields_of_a_section_are_those_of_its_class():
    points = [[0, 1.0], [5, 0.5]]
    given = {"paint": {"colour": "red", "coats": 3, "points": points, "names": ["a"]}}
    expected = House(Paint("red", 3, ((0, 1.0), (5, 0.5)), ("a",)))
    assert read_section(House, given) == expected
    assert read_section(House, ConfigDict(given)) == expected
    assert hash(read_section(House, given)) == hash(expected)


def test_a_field_with_a_default_may_be_missing_and_none_stands_for_no_section():
    given = {"paint": {"colour": "red"}, "roof": None}
    assert read_section(House, given) == House(Paint("red"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"^house\.paint is missing\.$"),
        ({"paint": {}}, r"^house\.paint\.colour is missing\.$"),
        ({"paint": "red"}, r"^house\.paint='red' must be a section"),
        ({"paint": None}, r"^house\.paint=None must be a section"),
        ({"paint": {"colour": "red"}, 3: 4}, r"^house=.* must be a section"),
        (
            {"paint": {"colour": "red", "coat": 1}},
            r"^house\.paint\.coat: there is no such field; there are colour, coats, points, names\. "
            r"The nearest is house\.paint\.coats\.$",
        ),
        ({"paint": {"colour": "red", "coats": 0}}, r"^house\.paint\.coats=0 must be at least 1"),
        ({"paint": {"colour": "red", "coats": 10}}, r"^house\.paint\.coats=10 never dries"),
        (
            {"roof": {"colour": "red", "coats": 10}, "paint": {"colour": "a"}},
            r"house\.roof\.coats|pai",
        ),
        ({"paint": {"colour": 3}}, r"^house\.paint\.colour=3 must be a string"),
        ({"paint": {"colour": "red", "coats": 1.5}}, r"^house\.paint\.coats=1\.5 must be a whole"),
        ({"paint": {"colour": "red", "coats": True}}, r"^house\.paint\.coats=True must be a whole"),
        ({"paint": {"colour": "red", "names": "a"}}, r"^house\.paint\.names='a' must be a list"),
        ({"paint": {"colour": "red", "names": [1]}}, r"^house\.paint\.names=1 must be a string"),
        ({"paint": {"colour": "red"}, "floors": None}, r"^house\.floors=None must be a whole"),
    ],
)
def test_what_does_not_fit_is_named_with_its_whole_path(given, message):
    with pytest.raises(ValueError, match=message):
        read_section(House, given, "house")
