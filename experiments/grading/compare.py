r"""Whether an answer is equal to the true one.

Both go through `normalise` and are taken apart by `structure.read`; raw texts are compared first,
so that an answer is always equal to itself. Lists have no order, tuples have one. A name counts
where both sides give it: `x = 5` is `5`, and not `y = 5`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re

from experiments.grading import structure
from experiments.grading.literal import equal_literals, read_literal
from experiments.grading.normalise import normalise
from experiments.grading.units import units_clash

# "(C) 42", "C. 42", "\textbf{(C)}\ 42".
_CHOICE = re.compile(
    r"(?:\\text\s*\{)?\s*(?:\(([A-J])\)[.:]?|([A-J])[.):])\s*\}?\s*(?![,;(]|and\b|or\b)(.+)$"
)
_CHOICES = re.compile(r"\([A-J]\)|(?<!\w)[A-J][.):]")
_LETTER = re.compile(r"\(?([A-J])\)?[.:]?")


def quick(prediction: str, answer: str) -> bool | None:
    """What texts and plain numbers decide; None where it takes algebra."""
    if prediction.strip() == answer.strip():
        return bool(answer.strip())
    given, true = normalise(prediction), normalise(answer)
    if not given or not true:
        return False
    if _tight(given) == _tight(true):
        return True
    a, b = read_literal(given), read_literal(true)
    if a is not None and b is not None and "," not in given + true:
        return equal_literals(a, b)
    return None


def _tight(normal: str) -> str:
    return re.sub(r"(?<![\dA-Za-z])\s+|\s+(?![\dA-Za-z])", "", normal)


def equal(prediction: str, answer: str) -> bool:
    """Whether they are one answer. What cannot be read is equal to nothing but itself.

    Runs in the grading process: it may take any time and memory.
    """
    decided = quick(prediction, answer)
    if decided is not None:
        return decided
    given, true = normalise(prediction), normalise(answer)
    if _equal_texts(given, true):
        return True
    # Groups of three digits may be numbers of a list; several signs may be chosen one by one.
    for other in (_listed, _independent):
        pair = other(given), other(true)
        if pair != (given, true) and _equal_texts(*pair):
            return True
    return _equal_choices(given, true)


def _listed(text: str) -> str:
    return re.sub(r"(?<=\d),(?=[1-9]\d{2})", ", ", text)


def _independent(text: str) -> str:
    signs = text.count("\\pm")
    if not 2 <= signs <= 4 or "\\mp" in text or "," in text:
        return text
    first, *rest = text.split("\\pm")
    choices = itertools.product("+-", repeat=signs)
    texts = ["".join([first, *map("".join, zip(c, rest, strict=True))]) for c in choices]
    return ", ".join(t.strip().removeprefix("+") for t in texts)


def _equal_choices(given: str, true: str) -> bool:
    """A letter with its value is that letter, and that value."""
    a, b = (None if len(_CHOICES.findall(t)) > 1 else _CHOICE.match(t) for t in (given, true))
    if a and b:
        return (a[1] or a[2]) == (b[1] or b[2]) and _equal_texts(a[3], b[3])
    choice, other = (a, true) if a else (b, given)
    if choice is None:
        return False
    letter = _LETTER.fullmatch(other)
    if letter:
        return letter[1] == (choice[1] or choice[2])
    return _equal_texts(normalise(choice[3]), other)


def _equal_texts(given: str, true: str) -> bool:
    try:
        return equal_nodes(structure.read(given), structure.read(true))
    except ValueError:
        return False


def equal_nodes(a: structure.Node, b: structure.Node) -> bool:
    """Whether two nodes are one answer. `b` is the true one.

    Raises:
      ValueError: algebra was asked and could not read one.
    """
    if isinstance(a, structure.Named) or isinstance(b, structure.Named):
        return _equal_named(a, b)
    if isinstance(a, structure.Number) and isinstance(b, structure.Number):
        return equal_literals(a.literal, b.literal)
    kinds = (structure.Plain, structure.Based, structure.Colons, structure.Matrix)
    if isinstance(a, kinds) or isinstance(b, kinds):
        return _equal_special(a, b)
    sets = (structure.Union, structure.Relations)
    if isinstance(a, sets) or isinstance(b, sets):
        return _equal_sets(a, b)
    if isinstance(a, structure.Several) or isinstance(b, structure.Several):
        return _equal_several(a, b)
    if isinstance(a, structure.Tuple) or isinstance(b, structure.Tuple):
        return _equal_tuples(a, b)
    return _equal_formulas(a, b)


def _equal_named(a: structure.Node, b: structure.Node) -> bool:
    if isinstance(a, structure.Named) and isinstance(b, structure.Named):
        if _name(a) == _name(b):
            return equal_nodes(a.value, b.value)
        return bool(a.text and b.text) and _same_equation(a.text, b.text)
    named, other = (a, b) if isinstance(a, structure.Named) else (b, a)
    assert isinstance(named, structure.Named)
    if isinstance(other, structure.Formula) and other.equation:
        return bool(named.text) and _same_equation(named.text, other.text)
    if isinstance(other, structure.Several) and not isinstance(named.value, structure.Several):
        return _equal_several(named, other)
    return equal_nodes(named.value, other) if named is a else equal_nodes(other, named.value)


def _name(named: structure.Named) -> str:
    """Without the arguments of a function: f(x) = 2x is f = 2x."""
    return re.sub(r"\([a-z]\)$", "", named.name)


def _equal_special(a: structure.Node, b: structure.Node) -> bool:
    if isinstance(a, structure.Matrix) and isinstance(b, structure.Matrix):
        if a.kind != b.kind or [len(r) for r in a.rows] != [len(r) for r in b.rows]:
            return False
        pairs = zip(sum(a.rows, ()), sum(b.rows, ()), strict=True)
        return all(equal_nodes(x, y) for x, y in pairs)
    if isinstance(a, structure.Matrix) or isinstance(b, structure.Matrix):
        return _equal_vector(a, b)
    if isinstance(a, structure.Colons) and isinstance(b, structure.Colons):
        suffixes = {a.suffix, b.suffix} - {""}
        return len(suffixes) < 2 and _same_parts(a.parts, b.parts)
    if isinstance(a, structure.Colons) or isinstance(b, structure.Colons):
        return _equal_ratio(a, b)
    if isinstance(a, structure.Plain) and isinstance(b, structure.Plain):
        return a.text == b.text
    if isinstance(a, structure.Plain) or isinstance(b, structure.Plain):
        plain, other = (a, b) if isinstance(a, structure.Plain) else (b, a)
        text = getattr(other, "text", None)
        return (
            isinstance(plain, structure.Plain)
            and text is not None
            and (structure.fold(text) == plain.text)
        )
    return a == b


def _same_parts(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return len(a) == len(b) and all(
        x == y or float(x) == float(y) for x, y in zip(a, b, strict=True)
    )


def _equal_vector(a: structure.Node, b: structure.Node) -> bool:
    """A column or row and the same numbers in brackets."""
    matrix, other = (a, b) if isinstance(a, structure.Matrix) else (b, a)
    if not isinstance(matrix, structure.Matrix) or not isinstance(other, structure.Tuple):
        return False
    values: tuple[structure.Node, ...] = sum(matrix.rows, ())
    flat = len(matrix.rows) == 1 or all(len(row) == 1 for row in matrix.rows)
    return (
        flat
        and len(values) == len(other.items)
        and all(equal_nodes(x, y) for x, y in zip(values, other.items, strict=True))
    )


def _equal_ratio(a: structure.Node, b: structure.Node) -> bool:
    """3:4 and the fraction 3/4; a time of day is no fraction."""
    colons, other = (a, b) if isinstance(a, structure.Colons) else (b, a)
    if not isinstance(colons, structure.Colons) or not isinstance(other, structure.Number):
        return False
    if len(colons.parts) != 2 or colons.suffix or any(p.startswith("0") for p in colons.parts):
        return False
    if len(colons.parts[1]) == 2 and len(colons.parts[0]) <= 2 and colons.parts[1] < "60":
        return False
    ratio = read_literal("/".join(colons.parts))
    return ratio is not None and ratio.value == other.literal.value


def _equal_several(a: structure.Node, b: structure.Node) -> bool:
    left, right = _items(a), _items(b)
    if isinstance(a, structure.Tuple) or isinstance(b, structure.Tuple):
        # "1, 2" for "(1, 2)": in order, and no interval's closed end.
        pair = a if isinstance(a, structure.Tuple) else b
        several = b if pair is a else a
        assert isinstance(pair, structure.Tuple)
        if isinstance(several, structure.Several) and several.braces:
            return False
        if (pair.left, pair.right) != ("(", ")") or len(left) != len(right):
            return False
        return all(equal_nodes(x, y) for x, y in zip(left, right, strict=True))
    braces = all(isinstance(n, structure.Several) and n.braces for n in (a, b))
    if braces:
        left, right = _distinct(left), _distinct(right)
    if len(left) != len(right):
        return False
    remaining = list(right)
    for item in left:
        found = next((r for r in remaining if _safely_equal(item, r)), None)
        if found is None:
            return False
        remaining.remove(found)
    return True


def _items(node: structure.Node) -> list[structure.Node]:
    if isinstance(node, structure.Several):
        items: list[structure.Node] = []
        for item in node.items:  # \{1 \pm \sqrt{5}, -2\}
            nested = isinstance(item, structure.Several) and not item.braces
            items += _items(item) if nested else [item]
        return items
    if isinstance(node, structure.Tuple):
        return list(node.items)
    if isinstance(node, structure.Named) and isinstance(node.value, structure.Several):
        return [dataclasses.replace(node, value=item, text="") for item in _items(node.value)]
    return [node]


def _distinct(items: list[structure.Node]) -> list[structure.Node]:
    found: list[structure.Node] = []
    for item in items:
        if not any(_safely_equal(item, other) for other in found):
            found.append(item)
    return found


def _safely_equal(a: structure.Node, b: structure.Node) -> bool:
    try:
        return equal_nodes(a, b)
    except ValueError:
        return False


def _equal_tuples(a: structure.Node, b: structure.Node) -> bool:
    if not isinstance(a, structure.Tuple) or not isinstance(b, structure.Tuple):
        return False
    if len(a.items) != len(b.items):
        return False
    if len(a.items) == 2 and _brackets(a) != _brackets(b):
        return False
    return all(equal_nodes(x, y) for x, y in zip(a.items, b.items, strict=True))


def _brackets(node: structure.Tuple) -> tuple[str, str]:
    """Angles are round brackets."""
    return node.left.replace("\\langle", "("), node.right.replace("\\rangle", ")")


def _equal_sets(a: structure.Node, b: structure.Node) -> bool:
    from experiments.grading.solution_sets import same_relations, same_set

    try:
        return same_set(a, b)
    except (ValueError, NotImplementedError, TypeError):
        pass
    if isinstance(a, structure.Union) and isinstance(b, structure.Union):
        several = (structure.Several(node.items) for node in (a, b))
        return _equal_several(*several)
    if isinstance(a, structure.Relations) and isinstance(b, structure.Relations):
        return same_relations(a, b)
    return False


def _equal_formulas(a: structure.Node, b: structure.Node) -> bool:
    from experiments.grading.expressions import same_value

    equations = [n for n in (a, b) if isinstance(n, structure.Formula) and n.equation]
    if equations:
        return len(equations) == 2 and _same_equation(equations[0].text, equations[1].text)
    if units_clash(_unit(a), _unit(b)):
        return False
    left, right = _text(a), _text(b)
    if left is None or right is None:
        return False
    if _tight(left) == _tight(right):
        return True
    percent = [isinstance(n, structure.Number) and n.literal.percent for n in (a, b)]
    return same_value(left, right) if not any(percent) else False


def _same_equation(a: str, b: str) -> bool:
    from experiments.grading.expressions import same_equation

    return _tight(a) == _tight(b) or same_equation(a, b)


def _unit(node: structure.Node) -> str:
    if isinstance(node, structure.Number):
        return node.literal.unit
    return node.unit if isinstance(node, structure.Formula) else ""


def _text(node: structure.Node) -> str | None:
    """LaTeX of a number or formula."""
    if isinstance(node, structure.Formula):
        return node.text
    if isinstance(node, structure.Number):
        literal = node.literal
        if literal.places >= 0:  # as it stands, for it may be rounded
            return structure.split_unit(node.text)[0].replace(",", "")
        value = literal.value
        sign = "-" if value < 0 else ""
        if value.denominator == 1:
            return f"{value}"
        return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    return None
