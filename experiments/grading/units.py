"""Units behind numbers: read, and compared only where two of the same kind clash."""

from __future__ import annotations

import re

# The names of each unit. Names that are not here are words like "apples".
_UNITS = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "yr year",
    "mg": "mg milligram",
    "g": "g gm gram",
    "kg": "kg kilogram",
    "lb": "lb pound",
    "oz": "oz ounce",
    "ton": "ton tonne",
    "mL": "ml milliliter millilitre",
    "L": "l liter litre",
    "gal": "gal gallon",
    "dollar": "dollar usd buck",
    "cent": "cent",
    "euro": "euro eur",
    "percent": "percent pct",
}
_NAMES = {name: unit for unit, names in _UNITS.items() for name in names.split()}
_OTHER = frozenset(
    [
        "deg",
        "degree",
        "rad",
        "radian",
        "percent",
        "mph",
        "kmph",
        "kph",
        "kmh",
        "unit",
        "sq",
        "square",
        "cubic",
        "cu",
        "per",
        "pm",
        "am",
        "rs",
        "rupee",
        "yen",
        "gbp",
        "hectare",
        "acre",
        "hz",
        "khz",
        "joule",
        "watt",
        "volt",
        "amp",
        "newton",
        "mol",
        "kw",
        "kwh",
    ]
)
_MATHEMATICS = frozenset(
    [
        "pi",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "sqrt",
        "frac",
        "theta",
        "alpha",
        "beta",
        "gamma",
        "delta",
        "lambda",
        "sigma",
        "omega",
        "phi",
        "psi",
        "mu",
        "inf",
        "infty",
        "cdot",
        "base",
        "mod",
        "and",
        "or",
        "pm",
        "mp",
    ]
)
_POWER = r"(?:\s*\^\s*\{?\s*-?[123]\s*\}?|[23])?"
_WORDS = r"[A-Za-z][A-Za-z.'\u00b5-]*"
_TEXT = re.compile(
    rf"\s*((?:\\text\s*\{{[^{{}}]*\}}|(?:\\cdot|/|\s)\s*(?=\\text)){{1,6}}{_POWER})\s*$"
)
_PLAIN = re.compile(rf"(?<=[\d)}}])(\s*)((?:{_WORDS}{_POWER}(?:\s+|\s*/\s*|\s*$)){{1,6}})$")


def split_unit(text: str) -> tuple[str, str]:
    r"""A normalised answer without the unit at its end, and the unit; "" where there is none.

    A unit is `\text{...}` behind something else, a unit's name behind a number, or words behind a
    number and a space. `3ab` is a product, and so is `5x`.
    """
    found = _TEXT.search(text)
    if found and found.start() and any(c.isdigit() or c == "\\" for c in text[: found.start()]):
        words = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", found[1])
        core = text[: found.start()].strip()
        if (
            not any(c.isdigit() for c in re.sub(_POWER + "$", "", words))
            and core[-1:] not in "=+-*/^_("
        ):
            return core, words.strip()
    found = _PLAIN.search(text)
    if found and _is_unit(found[2], spaced=bool(found[1])):
        return text[: found.start()].strip(), found[2].strip()
    return text, ""


def _is_unit(words: str, spaced: bool) -> bool:
    names = [_folded(word) for word in re.findall(_WORDS, words)]
    if not names or any(name in _MATHEMATICS for name in names):
        return False
    if all(_singular(name) in _NAMES or _singular(name) in _OTHER for name in names):
        return spaced or len(names[0]) > 1
    # Words of a language: letters in a row that are no product of variables.
    return spaced and len(names[0]) > 2 and all(re.search("[aeiouy]", name) for name in names)


def _folded(word: str) -> str:
    return word.casefold().strip(".'-")


def _singular(name: str) -> str:
    if name in _NAMES or name in _OTHER:
        return name
    return name.removesuffix("es") if name.removesuffix("es") in _NAMES else name.removesuffix("s")


def units_clash(unit: str, other: str) -> bool:
    """Whether both say what is measured, and not the same: minutes and hours, or days and miles."""
    given, true = _measure(unit), _measure(other)
    return None not in (given, true) and given != true


def _measure(unit: str) -> str | None:
    names = (_singular(_folded(word)) for word in re.findall(_WORDS, unit))
    return next((_NAMES[name] for name in names if name in _NAMES), None)
