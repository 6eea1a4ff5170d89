"""Dataclasses from nested mappings: every field known, typed, in range, and named by its path."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from models.checks import require

SectionT = TypeVar("SectionT")


def read_section(kind: type[SectionT], given: Mapping[str, Any], path: str = "") -> SectionT:
    """An instance of the dataclass `kind`, sections within it, and mappings of them, read likewise.

    A class may have a class method `check_given(given, path)`, which sees what is given before it
    is read. Lists become tuples.

    Args:
      given: a mapping, such as a ConfigDict.
      path: dotted name of the section, for errors; empty for the whole.

    Raises:
      ValueError: a field is unknown, missing, of another type or out of range. The error names its
        whole path.
    """
    given = plain_fields(given, path)
    types = field_types(kind)
    for name in given:
        if name not in types:
            raise ValueError(
                f"{_join(path, name)}: there is no such field; there are {', '.join(types)}. "
                f"The nearest is {_join(path, nearest(name, types))}."
            )
    if check := getattr(kind, "check_given", None):
        check(given, path)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in _needed(kind) - set(given):
            raise ValueError(f"{_join(path, field.name)} is missing.")
    values = {name: _value(types[name], x, _join(path, name)) for name, x in given.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(_full_path(str(error), path)) from None


def plain_fields(given: Any, path: str) -> dict[str, Any]:
    """What a section gives, by name.

    Raises:
      ValueError: it is no mapping of names.
    """
    fields = given.to_dict() if hasattr(given, "to_dict") else given
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        shown = f"{given!r:.100}"
        raise ValueError(f"{path or 'config'}={shown} must be a section with fields of its own.")
    return dict(fields)


def field_types(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields, by name, with their rules."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def section_type(kind: Any, given: Any) -> Any:
    """The dataclass that a field's type stands for, None for a plain value.

    Of several it is the one that has the fields given, as far as one has.
    """
    sections = [member for member in _members(kind) if dataclasses.is_dataclass(member)]
    names = set(given) if isinstance(given, Mapping) else set()
    fitting = [s for s in sections if _needed(s) <= names <= set(field_types(s))]
    return next(iter(fitting or sections), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _value(kind: Any, value: Any, path: str) -> Any:
    if value is None and NoneType in _members(kind):
        return None
    if (section := section_type(kind, value)) is not None:
        return read_section(section, value, path)
    if get_origin(_members(kind)[0]) is Mapping:
        of = get_args(_members(kind)[0])[1]
        return {n: _value(of, x, _join(path, n)) for n, x in plain_fields(value, path).items()}
    if _is_tuple(kind):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path}={value!r} must be a list.")
        value = _tuples(value)
        item = get_args(_members(kind)[0])
        if item and item[-1] is ...:
            for x in value:
                if get_origin(item[0]) is not tuple:
                    require(path, x, item[0])
    require(path, value, kind)
    return value


def _members(kind: Any) -> tuple[Any, ...]:
    """The types that a value may have."""
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(base) if get_origin(base) in (Union, UnionType) else (base,)


def _is_tuple(kind: Any) -> bool:
    return get_origin(_members(kind)[0]) is tuple


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _needed(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if _required(field)}


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _full_path(message: str, path: str) -> str:
    """A section's own message, which knows only the last part of its path."""
    parent, _, last = path.rpartition(".")
    if parent and message.startswith(f"{last}."):
        return f"{parent}.{message}"
    return message


def as_json(value: Any) -> str:
    """A field's value as JSON, tuples as lists."""
    return json.dumps(value)
