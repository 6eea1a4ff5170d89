"""Config sections as settings: every field is known, and one that is missing has a default."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

SettingsT = TypeVar("SettingsT")


def read_settings(settings: type[SettingsT], config: Any, section: str) -> SettingsT:
    """An instance of the dataclass `settings` from `config[section]`.

    Raises:
      ValueError: the section or a field that has no default is missing, a field is unknown, or a
        value is of another type or out of range.
    """
    if section not in config:
        raise ValueError(f"{section} is missing: give the fields of {settings.__name__}.")
    fields: Any = {f.name: f for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    given = dict(config[section])
    for name in given:
        if name not in fields:
            raise ValueError(
                f"{section}.{name}: there is no such field; there are {', '.join(fields)}."
            )
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ValueError(f"{section}.{name} is missing.")
    for name, value in given.items():
        check_type(f"{section}.{name}", value, fields[name].type)
    return settings(**given)


# What a field's type is called in its dataclass, and what a config may give for it.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
}


def check_type(name: str, value: Any, kind: str) -> None:
    """Raises where `value` is not of a plain `kind`: bool, int, float or str; others may be anything.

    Raises:
      ValueError: names the field.
    """
    if kind not in _TYPES:
        return
    types, words = _TYPES[kind]
    if not isinstance(value, types) or (kind != "bool" and isinstance(value, bool)):
        raise ValueError(f"{name}={value!r} must be {words}, not {type(value).__name__}.")
