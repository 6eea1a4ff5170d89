"""A config for people: every field, its value, and what it means."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from experiments.config.reading import as_json
from experiments.config.sections import NO_ARCHITECTURE
from models.config import ModelConfig

# An entry of a docstring's table of attributes, which may explain several names.
_ENTRY = re.compile(r"  (\w+(?:, \w+)*): (.*)")
# A sentence ends where another one begins.
_SENTENCE = re.compile(r"\.\s+(?=[A-Z`])")


def meanings(kind: type) -> dict[str, str]:
    """What each field of a dataclass means, in one line: of its docstring's table of attributes."""
    found: dict[str, str] = {}
    for base in reversed(inspect.getmro(kind)):
        if dataclasses.is_dataclass(base):
            found |= _table(inspect.cleandoc(base.__doc__ or ""))
    return {f.name: found[f.name] for f in dataclasses.fields(kind) if f.name in found}


def _table(text: str) -> dict[str, str]:
    _, _, rest = text.partition("\nAttributes:\n")
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines():
        if match := _ENTRY.fullmatch(line):
            names = match[1].split(", ")
            entries |= dict.fromkeys(names, match[2])
        elif line.startswith("    ") and names:
            entries |= dict.fromkeys(names, f"{entries[names[0]]} {line.strip()}")
        elif line.strip():
            break
    return {name: _SENTENCE.split(entry)[0].rstrip(".") for name, entry in entries.items()}


def describe(config: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, value as JSON, and meaning of every field of a tree, defaults included."""
    explained = meanings(type(config))
    left_out = NO_ARCHITECTURE if isinstance(config, ModelConfig) else ()
    for field in dataclasses.fields(config):
        if field.name in left_out:
            continue
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from describe(value, f"{name}.")
        else:
            yield name, as_json(value), explained[field.name]


def config_text(config: Any) -> str:
    """A line for every field: `path = value  # meaning`."""
    return "\n".join(f"{path} = {value}  # {meaning}" for path, value, meaning in describe(config))
