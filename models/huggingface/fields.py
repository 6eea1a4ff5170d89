"""The fields of one JSON object, with errors that say which file and field they are about."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class Fields:
    """Reads fields of `values`; a ValueError of any method has file, field and value.

    Attributes:
      values: the object's fields.
      source: what errors call the file.
      prefix: what stands before a field's name in errors, such as `rope_scaling.`.
    """

    def __init__(self, values: Any, source: str, prefix: str = ""):
        if not isinstance(values, dict):
            raise ValueError(
                f"{source}: {prefix.rstrip('.') or 'the file'} must hold a JSON object, "
                f"not {values!r:.200}."
            )
        self.values, self.source, self.prefix = values, source, prefix

    def error(self, name: str, supported: str) -> ValueError:
        """The error that field `name` is wrong, and what is right."""
        value = f" is {self.values[name]!r:.200}" if name in self.values else " is missing"
        return ValueError(f"{self.source}: field {self.prefix + name!r}{value}; {supported}.")

    def given(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def integer(self, name: str) -> int:
        """A positive integer below 2^31."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise self.error(name, "it must be a positive integer below 2^31")
        return value

    def number(self, name: str) -> float:
        """A positive number below 1e300."""
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
            raise self.error(name, "it must be a positive number")
        return float(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.error(name, "it must be true or false")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """One of `choices`."""
        value = self.values.get(name)
        if not isinstance(value, str) or value not in choices:
            raise self.error(name, f"supported are {', '.join(map(repr, choices))}")
        return value

    def pin(self, name: str, values: Collection[Any]) -> None:
        """Raises where the field is given and is none of `values`."""
        if self.given(name) and not any(_same(self.values[name], v) for v in values):
            raise self.error(name, f"supported is {' or '.join(repr(v) for v in values)}")


def _same(value: Any, other: Any) -> bool:
    # JSON's 0 and 0.0 mean the same; false and 0 do not.
    return value == other and isinstance(value, bool) == isinstance(other, bool)
