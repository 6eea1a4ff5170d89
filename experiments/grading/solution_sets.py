r"""Intervals, their unions, and inequalities as sets of numbers. Runs in the grading process."""

from __future__ import annotations

import re
from typing import Any

import sympy
from sympy.logic.boolalg import And

from experiments.grading import structure
from experiments.grading.expressions import Unreadable, is_zero, parse, same_direction

_SIGN = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>")
_CALL = re.compile(r"[A-Za-z]\s*\(\s*[A-Za-z]\s*\)")
_RELATION: dict[str, Any] = {
    "\\le": sympy.Le,
    "\\ge": sympy.Ge,
    "\\ne": sympy.Ne,
    "<": sympy.Lt,
    ">": sympy.Gt,
}


def as_set(node: structure.Node) -> sympy.Set:
    """The set of real numbers that a node describes.

    Raises:
      Unreadable: it describes none, or one with letters in it.
    """
    if isinstance(node, structure.Named):
        return as_set(node.value)
    if isinstance(node, structure.Union):
        return sympy.Union(*map(as_set, node.items))
    if isinstance(node, structure.Several):
        return sympy.FiniteSet(*(_number(item) for item in node.items))
    if isinstance(node, structure.Relations):
        sets = [_solved(text) for text in node.texts]
        if node.either:
            return sympy.Union(*sets)
        both = sympy.Intersection(*sets)
        # x < -1, x > 2: nobody lists conditions that exclude each other.
        return sympy.Union(*sets) if both == sympy.S.EmptySet else both
    if isinstance(node, structure.Tuple) and len(node.items) == 2:
        low, high = (_number(item) for item in node.items)
        if node.left not in ("(", "[") or not _less(low, high):
            raise Unreadable("not an interval")
        return sympy.Interval(low, high, node.left == "(", node.right == ")")
    raise Unreadable("not a set")


def _number(node: structure.Node) -> sympy.Expr:
    if isinstance(node, structure.Number):
        value = node.literal.value
        return sympy.Rational(value.numerator, value.denominator)
    if isinstance(node, structure.Formula) and not node.equation:
        value = parse(node.text)
        if isinstance(value, sympy.Expr) and not value.free_symbols and value.is_extended_real:
            return sympy.nsimplify(value.doit()) if value.is_rational else value.doit()
    raise Unreadable("not a number")


def _less(low: sympy.Expr, high: sympy.Expr) -> bool:
    return bool((high - low).is_positive) or bool((high - low).evalf(20) > 0)


def relations(texts: tuple[str, ...]) -> list[Any]:
    """The inequalities in texts, chains taken apart.

    Raises:
      Unreadable: a side does not parse.
    """
    found = []
    for text in texts:
        signs = _SIGN.findall(text)
        # The values of a function are meant: -1 <= f(x) <= 1.
        sides = [_CALL.sub("y", side).strip() for side in _SIGN.split(text)]
        values = [parse(side) for side in sides if side]
        if len(values) != len(sides) or not all(isinstance(v, sympy.Expr) for v in values):
            raise Unreadable(text)
        found += [
            _RELATION[sign](left, right, evaluate=False)
            for left, sign, right in zip(values, signs, values[1:], strict=False)
        ]
    return found


def _solved(text: str) -> sympy.Set:
    parts = relations((text,))
    symbols = set().union(*(part.free_symbols for part in parts))
    if len(symbols) != 1:
        raise Unreadable(text)
    solved: sympy.Set = And(*(part.doit() for part in parts)).as_set()
    return solved


def same_set(a: structure.Node, b: structure.Node) -> bool:
    """Whether two nodes describe one set of numbers.

    Raises:
      Unreadable: one of them describes none.
    """
    left, right = as_set(a), as_set(b)
    if left == right:
        return True
    ends_a, ends_b = _ends(left), _ends(right)
    return (
        len(ends_a) == len(ends_b) > 0
        and all(x[1:] == y[1:] for x, y in zip(ends_a, ends_b, strict=True))
        and all(_same_end(x[0], y[0]) for x, y in zip(ends_a, ends_b, strict=True))
    )


def _ends(whole: sympy.Set) -> list[tuple[Any, str]]:
    """The ends of a union's intervals in order, each with its bracket."""
    parts = whole.args if isinstance(whole, sympy.Union) else (whole,)
    ends: list[tuple[Any, str]] = []
    for part in parts:
        if isinstance(part, sympy.Interval):
            ends.append((part.start, "(" if part.left_open else "["))
            ends.append((part.end, ")" if part.right_open else "]"))
        elif isinstance(part, sympy.FiniteSet):
            ends += [(point, "{}") for point in part.args]
        else:
            return []
    return sorted(ends, key=lambda end: (float(end[0].evalf()), end[1]))


def _same_end(a: Any, b: Any) -> bool:
    if a.is_infinite or b.is_infinite:
        return bool(a == b)
    return is_zero(a - b)


def same_relations(a: structure.Relations, b: structure.Relations) -> bool:
    """Whether inequalities in several letters say the same, one by one, in any order.

    Raises:
      Unreadable: a side does not parse.
    """
    left, right = relations(a.texts), relations(b.texts)
    if len(left) != len(right) or a.either != b.either:
        return False
    for one in left:
        other = next((r for r in right if _same_relation(one, r)), None)
        if other is None:
            return False
        right.remove(other)
    return True


def _same_relation(a: Any, b: Any) -> bool:
    if isinstance(a, sympy.Ne) != isinstance(b, sympy.Ne):
        return False
    over_a, strict_a = _above(a)
    over_b, strict_b = _above(b)
    return strict_a == strict_b and same_direction(over_a, over_b)


def _above(relation: Any) -> tuple[sympy.Expr, bool]:
    """What is at least zero, or above it."""
    difference = relation.lhs - relation.rhs
    if isinstance(relation, sympy.Lt | sympy.Le):
        difference = -difference
    return difference, isinstance(relation, sympy.Lt | sympy.Gt)
