r"""Values and equations compared exactly: a LaTeX parser, then arithmetic without rounding.

math-verify's own comparison rounds to six decimals, drops terms beside large powers, and looks for
a number inside of what it cannot parse. Here what does not parse is unequal to everything but
itself, and a difference is zero only if no digit of it can be found. Runs in the grading process.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from experiments.grading.literal import Literal, is_rounded, read_literal

# Digits that are looked through before a difference counts as zero. A term may stand beside a power
# as large as 2^2005.
_DIGITS = 1_500
_DIGITS_AT_POINTS = 150
_POINTS = [
    sympy.Rational(*p) for p in ((3, 7), (19, 11), (31, 10), (2, 1), (7, 2), (5, 1), (11, 13))
]
_MOST_POINTS = 24
_LEAST_REAL_POINTS = 4
_OF_WHOLE_NUMBERS = (sympy.factorial, sympy.binomial, sympy.Sum, sympy.Product)
_CONFIG = ConversionConfig(lowercase_symbols=False)
# What the parser takes for something else than a reader does.
_MISREAD = re.compile(
    r"\d\s+\d|\\(?:pm|mp|ldots|cup|cap|in|forall|exists|text)(?![A-Za-z])|[:'\"@#&?]"
)
_IMPLICIT = re.compile(
    r"(?<=\d)\s*(?=\()"
    r"|(?<=\))\s*(?=[\d(A-Za-z]|\\(?!cdot|l[eo]|g[et]|n[et]|p?mod|bmod|%|to|in|or))|(?<=\})(?=\d)"
)


# 2^{3^{4}}, and a factorial: numbers that the parser would write out.
_TOWER = re.compile(r"(\d+)\s*((?:\^\s*\{\s*\d+\s*)+)\}")
_FACTORIAL = re.compile(r"(\d+)\s*!")
_MOST_DIGITS = 100_000
_LARGEST_FACTORIAL = 20_000


class Unreadable(ValueError):
    """An expression that the parser does not understand, or understands as something else."""


@functools.lru_cache(maxsize=1_000)
def parse(latex: str) -> Any:
    """The SymPy expression of a formula, with exact numbers.

    Raises:
      Unreadable: there is none.
    """
    if _MISREAD.search(latex) or _is_too_large(latex):
        raise Unreadable(latex)
    text = _IMPLICIT.sub(_product, latex)
    try:
        degrees = "\\circ" in text
        found = latex2sympy(
            text,
            is_real=True,
            convert_degrees=degrees,
            normalization_config=None,
            conversion_config=_CONFIG,
        )
    except Exception as error:
        raise Unreadable(latex) from error
    if not isinstance(found, sympy.Basic | sympy.MatrixBase):
        raise Unreadable(latex)
    if isinstance(found, sympy.Expr):
        floats = {f: sympy.Rational(str(f)) for f in found.atoms(sympy.Float)}
        units = {s: sympy.I for s in found.free_symbols if s.name in ("i", "\\imath")}
        found = found.xreplace({**floats, **units})
        held = {u: u.args[0] for u in found.atoms(sympy.UnevaluatedExpr)}
        found = found.xreplace(held)
        if found.has(sympy.nan, sympy.zoo):
            raise Unreadable(latex)
    return found


def _is_too_large(latex: str) -> bool:
    """Whether a number in a formula has more digits than anyone compares."""
    if any(len(m[1]) > 9 or int(m[1]) > _LARGEST_FACTORIAL for m in _FACTORIAL.finditer(latex)):
        return True
    for tower in _TOWER.finditer(latex):
        numbers = [int(x) for x in (tower[1], *re.findall(r"\d+", tower[2]))]
        exponent = numbers.pop()
        while len(numbers) > 1:
            base = numbers.pop()
            if base > 1 and exponent * math.log2(base) > 20:
                return True
            exponent = base**exponent
        if numbers[0] > 1 and exponent * math.log10(numbers[0]) > _MOST_DIGITS:
            return True
    return False


def _product(match: re.Match[str]) -> str:
    """A sign for a product that has none, where the parser would add: it reads 2(3) as 5."""
    is_base = re.search(r"\\log\s*_\s*\{[^{}]*\}$", match.string[: match.start()])
    return match[0] if is_base else r"\cdot "


def same_value(a: str, b: str) -> bool:
    """Whether two formulas have the same value wherever both have a real one."""
    left, right = parse(a), parse(b)
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(map(_is_same, left, right))
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        return _is_same(left, right) or _is_rounded(a, right) or _is_rounded(b, left)
    return bool(left == right)


def _is_rounded(text: str, value: sympy.Expr) -> bool:
    r"""Whether a long decimal rounds an irrational number: 1.414214 is \sqrt{2}."""
    literal: Literal | None = read_literal(text)
    if literal is None or literal.places < 0 or value.free_symbols or value.is_rational:
        return False
    number = value.evalf(30)
    return bool(number.is_Float) and is_rounded(literal, _fraction(number))


def _fraction(number: Any) -> Any:
    from fractions import Fraction

    exact = sympy.Rational(number)
    return Fraction(int(exact.p), int(exact.q))


def _is_same(left: sympy.Expr, right: sympy.Expr) -> bool:
    if left == right:
        return True
    if left.has(sympy.oo, -sympy.oo) or right.has(sympy.oo, -sympy.oo):
        return bool(sympy.simplify(left) == sympy.simplify(right))
    left, right = left.doit(), right.doit()
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda s: str(s))
    if not symbols:
        return is_zero(left - right)
    if left.atoms(sympy.Function) or right.atoms(sympy.Function):
        undefined = {
            f.func
            for e in (left, right)
            for f in e.atoms(sympy.Function)
            if isinstance(f, sympy.core.function.AppliedUndef)
        }
        if undefined:
            return bool(sympy.simplify(left - right) == 0)
    return _same_at_points(left, right, symbols)


def _same_at_points(left: sympy.Expr, right: sympy.Expr, symbols: list[Any]) -> bool:
    """At points where both are real, they must agree; where there are hardly any, at all points."""
    real, others = 0, []
    whole = left.has(*_OF_WHOLE_NUMBERS) or right.has(*_OF_WHOLE_NUMBERS)
    for point in _whole_points(symbols) if whole else _points(symbols):
        a, b = left.xreplace(point), right.xreplace(point)
        if any(x.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) for x in (a, b)):
            continue
        real_a, real_b = _is_real(a), _is_real(b)
        if real_a and real_b:
            if not is_zero(a - b, _DIGITS_AT_POINTS):
                return False
            real += 1
        elif real_a != real_b:
            return False
        else:
            others.append((a, b))
    if real >= _LEAST_REAL_POINTS:
        return True
    return bool(real or others) and all(is_zero(a - b, _DIGITS_AT_POINTS) for a, b in others)


def _points(symbols: list[Any]) -> Iterator[dict[Any, Any]]:
    """Points of all signs, in general position."""
    signs = itertools.product((1, -1), repeat=min(len(symbols), 3))
    for k, (shift, sign) in enumerate(itertools.product(range(len(_POINTS)), list(signs))):
        if k >= _MOST_POINTS * (1 + (len(symbols) > 1)):
            return
        yield {
            symbol: sign[j % len(sign)]
            * (_POINTS[(shift + 2 * j + j // 3) % len(_POINTS)] + j // 3)
            for j, symbol in enumerate(symbols)
        }


def _whole_points(symbols: list[Any]) -> Iterator[dict[Any, Any]]:
    """Points at which a factorial is a whole number. A later letter is smaller, as k is than n."""
    for n in range(_MOST_POINTS // 3):
        yield {
            s: sympy.Integer(2 + n * (n + 3) // 2 + len(symbols) - j) for j, s in enumerate(symbols)
        }


def _is_real(value: sympy.Expr) -> bool:
    known = value.is_real
    if known is not None:
        return bool(known)
    number = value.evalf(20)
    return bool(number.is_real) or is_zero(sympy.im(number), _DIGITS_AT_POINTS)


def is_zero(value: sympy.Expr, digits: int = _DIGITS) -> bool:
    """Whether a constant is zero: exactly, or because no digit of it can be found."""
    if value.is_Rational:
        return bool(value == 0)
    if value.is_zero is not None:
        return bool(value.is_zero)
    number = value.evalf(5, maxn=digits)
    parts = number.as_real_imag()
    if all(part == 0 for part in parts):
        return True
    # SymPy marks a result of which no digit is certain with a precision of one bit.
    if not all(part.is_Float or part.is_Rational for part in parts):
        return bool(sympy.simplify(value) == 0)
    return all(part == 0 or getattr(part, "_prec", 53) == 1 for part in parts)


def same_equation(a: str, b: str) -> bool:
    """Whether two equations say the same: one side less the other, up to a constant factor."""
    return _factor(_difference(a), _difference(b)) is not None


def _difference(text: str) -> sympy.Expr:
    parsed = parse(text)
    if not isinstance(parsed, sympy.Eq):
        raise Unreadable(text)
    difference = parsed.lhs - parsed.rhs
    if not isinstance(difference, sympy.Expr):
        raise Unreadable(text)
    return difference


def _factor(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
    """The constant that b is times a; None where it is no multiple, or one of them is zero."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=lambda s: str(s))
    if not symbols or a.free_symbols != b.free_symbols:
        return None
    for point in _points(symbols):
        at_a, at_b = a.xreplace(point), b.xreplace(point)
        if at_a.is_finite and at_b.is_finite and not is_zero(at_a) and not is_zero(at_b):
            break
    else:
        return None
    if not _is_same(a * at_b, b * at_a):
        return None
    factor: sympy.Expr = at_b / at_a
    return factor


def same_direction(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether b is a times a positive constant."""
    factor = _factor(a, b)
    return factor is not None and bool(factor.is_positive)
