"""Sections of a config as settings."""

from __future__ import annotations

import dataclasses

import pytest
from ml_collections import ConfigDict

from experiments.config.settings import read_settings


@dataclasses.dataclass(frozen=True)
class Paint:
    colour: str
    coats: int = 2
    points: tuple = ()

    def __post_init__(self):
        if self.coats < 1:
            raise ValueError(f"paint.coats={self.coats} must be at least 1.")


def config(**fields) -> ConfigDict:
    return ConfigDict({"paint": fields})


def test_fields_of_the_section_are_those_of_the_settings():
    points = ((0, 1.0), (5, 0.5))
    read = read_settings(Paint, config(colour="red", coats=3, points=points), "paint")
    assert read == Paint("red", 3, points)
    assert hash(read) == hash(Paint("red", 3, points))


def test_a_field_with_a_default_may_be_missing():
    assert read_settings(Paint, config(colour="red"), "paint") == Paint("red")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"paint\.colour is missing\."),
        (
            {"colour": "red", "coat": 1},
            r"paint\.coat: there is no such field; there are colour, coats, points\.",
        ),
        ({"colour": "red", "coats": 0}, r"paint\.coats=0 must be at least 1"),
        ({"colour": 3}, r"paint\.colour=3 must be text, not int"),
        ({"colour": "red", "coats": 1.5}, r"paint\.coats=1\.5 must be a whole number"),
        ({"colour": "red", "coats": True}, r"paint\.coats=True must be a whole number"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        read_settings(Paint, config(**fields), "paint")


def test_a_missing_section_is_named():
    with pytest.raises(ValueError, match=r"wood is missing: give the fields of Paint\."):
        read_settings(Paint, config(colour="red"), "wood")


def test_every_field_is_read_by_its_name(monkeypatch):
    """As `tests/experiments/config/test_configs.py` expects of whoever reads a config."""
    read, plain = set(), ConfigDict.__getitem__

    def recording(self, key):
        read.add(key)
        return plain(self, key)

    section = config(colour="red", coats=1, points=())
    monkeypatch.setattr(ConfigDict, "__getitem__", recording)
    read_settings(Paint, section, "paint")
    assert {"colour", "coats", "points"} <= read
