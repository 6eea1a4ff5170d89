r"""Numbers written out: exact, and equal by value; a long decimal may stand for a fraction."""

from __future__ import annotations

import dataclasses
import functools
import re
from fractions import Fraction

from experiments.grading.normalise import without_commas
from experiments.grading.units import split_unit, units_clash

# Decimals that a rounded value must show, and how close it must then be, relative to the value.
ROUNDED_DECIMALS = 6
ROUNDING = Fraction(1, 10**6)
# A decimal of so few places is meant as it stands.
_EXACT_PLACES = 9
_LARGEST_POWER = 5_000
_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<mantissa>{_DECIMAL})(?:\s*(?:[eE](?P<e>[-+]?\d{{1,5}})"
    rf"|\\cdot\s*10\s*\^\s*\{{\s*(?P<power>[-+]?\d{{1,5}})\s*\}}))?"
)
_POWER_OF_TEN = re.compile(r"10\s*\^\s*\{\s*(?P<power>[-+]?\d{1,5})\s*\}")
_QUOTIENT = re.compile(
    rf"(?:(?P<whole>\d+)\s*)?"
    rf"\\frac\s*\{{\s*(?P<a>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<b>-?{_DECIMAL})\s*\}}"
)
_SLASHED = re.compile(rf"(?:(?P<whole>\d+)\s+)?(?P<a>{_DECIMAL})\s*/\s*(?P<b>{_DECIMAL})")
_REPEATING = re.compile(
    r"(?P<whole>\d*)\.(?P<fixed>\d*)(?:\\overline\s*\{\s*(?P<bar>\d+)\s*\}|\((?P<bracket>\d+)\))"
    r"(?:\s*\\ldots|\.\.\.)?"
)
_DOTTED = re.compile(
    r"(?P<whole>\d*)\.(?P<fixed>\d*)\\dot\s*\{?(?P<first>\d)\}?"
    r"(?:(?P<middle>\d*)\\dot\s*\{?(?P<last>\d)\}?)?"
)
_CONTINUED = re.compile(
    r"(?P<whole>\d*)\.(?P<fixed>\d*?)(?P<block>\d{1,6}?)(?P=block){2,}"
    r"(?P<part>\d*)\s*(?:\\ldots|\.\.\.+)"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|pct)\s*\}|\s(?:percent|pct))\s*$")
_WORDS = {
    word: i
    for i, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}


@dataclasses.dataclass(frozen=True)
class Literal:
    """A number that is written out.

    Attributes:
      value: exactly what stands there.
      places: decimal places of one that may be rounded; -1 of others.
      percent: whether a per cent sign follows.
      unit: what else follows.
    """

    value: Fraction
    places: int = -1
    percent: bool = False
    unit: str = ""


@functools.lru_cache(maxsize=20_000)
def read_literal(normal: str) -> Literal | None:
    """The number that a normalised answer is; None where it is something else."""
    text, unit = split_unit(normal)
    text = without_commas(text)
    percent = bool(_PERCENT.search(text))
    text = _PERCENT.sub("", text).strip()
    percent = percent or unit.casefold().strip(" .") in ("percent", "pct")
    sign = 1
    while text[:1] in ("-", "+"):
        sign, text = (-sign if text[0] == "-" else sign), text[1:].strip()
    while text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1].strip()
    read = _unsigned(text)
    if read is None:
        return None
    value, places = read
    return Literal(sign * value, places, percent, "" if percent else unit)


def _unsigned(text: str) -> tuple[Fraction, int] | None:
    if text.casefold() in _WORDS:
        return Fraction(_WORDS[text.casefold()]), -1
    if match := _NUMBER.fullmatch(text):
        power = int(match["e"] or match["power"] or 0)
        if abs(power) > _LARGEST_POWER:
            return None
        mantissa = match["mantissa"]
        scaled = match["e"] or match["power"]
        places = len(mantissa.partition(".")[2]) if "." in mantissa and not scaled else -1
        return Fraction(mantissa.rstrip(".")) * _power(power), places
    if match := _POWER_OF_TEN.fullmatch(text):
        power = int(match["power"])
        return (_power(power), -1) if abs(power) <= _LARGEST_POWER else None
    for pattern in (_QUOTIENT, _SLASHED):
        if match := pattern.fullmatch(text):
            below = Fraction(match["b"])
            if not below or (match["whole"] and match["a"].startswith("-")):
                return None
            return int(match["whole"] or 0) + Fraction(match["a"]) / below, -1
    return _repeating(text)


def _power(exponent: int) -> Fraction:
    return Fraction(10**exponent) if exponent >= 0 else Fraction(1, 10**-exponent)


def _repeating(text: str) -> tuple[Fraction, int] | None:
    if match := _REPEATING.fullmatch(text):
        return _period(match["whole"], match["fixed"], match["bar"] or match["bracket"]), -1
    if match := _DOTTED.fullmatch(text):
        block = match["first"] + (match["middle"] or "") + (match["last"] or "")
        return _period(match["whole"], match["fixed"], block), -1
    match = _CONTINUED.fullmatch(text)
    if match and match["block"].startswith(match["part"]):
        return _period(match["whole"], match["fixed"], match["block"]), -1
    return None


def _period(whole: str, fixed: str, block: str) -> Fraction:
    shift = 10 ** len(fixed)
    repeated = Fraction(int(block), 10 ** len(block) - 1)
    return int(whole or 0) + (int(fixed or 0) + repeated) / shift


def equal_literals(a: Literal, b: Literal) -> bool:
    """Whether two numbers are one: 20 % is 20 and 0.2, and 0.333333 may stand for 1/3."""
    if units_clash(*("percent" if x.percent else x.unit for x in (a, b))):
        return False
    if a.percent == b.percent:
        return equal_values(a, b)
    share, number = (a, b) if a.percent else (b, a)
    hundredth = dataclasses.replace(share, value=share.value / 100, places=-1)
    return equal_values(share, number) or equal_values(hundredth, number)


def equal_values(a: Literal, b: Literal) -> bool:
    """By value, or as a decimal of many places that rounds what cannot be written out."""
    if a.value == b.value:
        return True
    if a.places >= 0 and b.places >= 0:
        short, long = (a, b) if a.places <= b.places else (b, a)
        return short.places < long.places > _EXACT_PLACES and is_rounded(short, long.value)
    if a.places >= 0 or b.places >= 0:
        rounded, exact = (a, b) if a.places >= 0 else (b, a)
        return not _terminates(exact.value) and is_rounded(rounded, exact.value)
    return False


def is_rounded(literal: Literal, value: Fraction) -> bool:
    """Whether a decimal shows a value to at least six places and six digits."""
    if literal.places < ROUNDED_DECIMALS:
        return False
    return abs(literal.value - value) <= ROUNDING * min(abs(value), Fraction(1))


def _terminates(value: Fraction) -> bool:
    """Whether a value can be written out as a decimal of a few places."""
    return (value * 10**_EXACT_PLACES).denominator == 1
