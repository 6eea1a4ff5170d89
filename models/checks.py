"""What a setting may be, said at its field and checked when the settings are made.

    @dataclasses.dataclass(frozen=True)
    class Settings:
        rate: Annotated[float, above(0)]
        form: Annotated[str, one_of("loss", "advantage")] = "loss"

        def __post_init__(self):
            check(self, "section")

A plain type is a rule, too: a float is finite, so NaN is refused everywhere, an int is whole, and
neither is a bool. Rules between fields stay in `__post_init__`, behind `check`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """What `fits`; `needs` goes on from "field=value" where something does not."""

    fits: Callable[[Any], bool]
    needs: str


def at_least(low: float, meaning: str = "") -> Rule:
    """A number of `low` or more; `meaning` says what `low` itself stands for."""
    bound = f"{low} ({meaning}) or more" if meaning else f"at least {low}"
    return Rule(lambda x: x >= low, f" must be {bound}.")


def above(low: float) -> Rule:
    """A number above `low`."""
    return Rule(lambda x: x > low, f" must be above {low}.")


def between(low: float, high: float, ends: str = "[]") -> Rule:
    """A number from `low` to `high`; `ends` are those of an interval, such as `(]`."""

    def fits(x: float) -> bool:
        return low < x < high or (x == low and ends[0] == "[") or (x == high and ends[1] == "]")

    return Rule(fits, f" must lie in {ends[0]}{low}, {high}{ends[1]}.")


def one_of(*choices: Any) -> Rule:
    """One of `choices`."""
    return Rule(lambda x: x in choices, f": choose one of {choices}.")


def _number(x: Any, kind: type) -> bool:
    return isinstance(x, kind) and not isinstance(x, bool)


_KINDS = {
    bool: Rule(lambda x: isinstance(x, bool | np.bool_), " must be True or False."),
    int: Rule(lambda x: _number(x, numbers.Integral), " must be a whole number."),
    float: Rule(lambda x: _number(x, numbers.Real), " must be a number."),
    str: Rule(lambda x: isinstance(x, str), " must be a string."),
}


def _is_finite(x: Any) -> bool:
    return not isinstance(x, numbers.Real) or isinstance(x, numbers.Integral) or math.isfinite(x)


def _fits_an_array(x: Any) -> bool:
    return not isinstance(x, numbers.Integral) or -(2**63) <= int(x) < 2**63


_FINITE = Rule(_is_finite, " must be finite.")
_IN_64_BITS = Rule(_fits_an_array, " must fit into 64 bits.")

Count = Annotated[int, at_least(1)]
Share = Annotated[float, between(0, 1)]
Temperature = Annotated[float, at_least(0, "greedy")]


@functools.cache
def _rules(kind: Any) -> tuple[bool, tuple[Rule, ...]]:
    """Whether None fits the type `kind`, and the rules for everything else."""
    base, *rules = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    members = get_args(base) if get_origin(base) in (Union, UnionType) else (base,)
    others = [m for m in members if m is not NoneType]
    kinds = [_KINDS[others[0]]] if len(others) == 1 and others[0] in _KINDS else []
    own = [r for r in rules if isinstance(r, Rule)]
    # Ranges come before finiteness: what they say of NaN tells more.
    return NoneType in members, (*kinds, *own, _FINITE, _IN_64_BITS)


_hints = functools.cache(functools.partial(get_type_hints, include_extras=True))


def require(name: str, value: Any, kind: Any) -> None:
    """Raises a ValueError unless `value` fits the type `kind`, such as `Annotated[int, above(0)]`.

    The error names `name` and the value.
    """
    optional, rules = _rules(kind)
    if value is None and optional:
        return
    for rule in rules:
        if not rule.fits(value):
            raise ValueError(f"{name}={value!r}{rule.needs}")


def check(settings: Any, section: str = "") -> None:
    """Raises a ValueError for the first field of a dataclass that does not fit its type.

    The error names `section`, if there is one, the field, and its value.
    """
    hints = _hints(settings.__class__)
    for name in (field.name for field in dataclasses.fields(settings)):
        require(f"{section}.{name}" if section else name, getattr(settings, name), hints[name])
