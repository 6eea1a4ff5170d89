r"""What an answer is made of: list, tuple, interval, named value, relation, number, text.

Reading stops at what only algebra can compare, which is left as LaTeX.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from experiments.grading.literal import Literal, read_literal
from experiments.grading.units import split_unit

_OPENING, _CLOSING = "([{", ")]}"
_BRACKETS = {"\\{": "\\}", "(": ")", "[": "]", "\\langle": "\\rangle"}
_NAME = re.compile(
    r"((?:\\(?:angle|overline|mathbb|text|frac|triangle|vec|hat|tilde|Delta|max|min)\s*)?\{?"
    r"(?:\\[A-Za-z]+|[A-Za-z]{1,4}'?)\}?(?:_\{[^{}]*\}|_[A-Za-z0-9])?'?(?:\s*\([A-Za-z, ]{1,12}\))?"
    r"|\([A-Za-z](?:\s*,\s*[A-Za-z]){1,5}\)|\\text\s*\{[^{}]*\}|[A-Za-z][A-Za-z ]{0,30}"
    r"|\|[A-Za-z]{1,3}\||\\tan\s*\\theta)"
    r"\s*(=|:=|\\approx(?![A-Za-z])|\\in(?![A-Za-z]))\s*"
)
_RELATION = re.compile(r"(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|<|>)")
_DOTS = re.compile(r"\\ldots|\.\.\.")
_BASED = re.compile(
    r"\(?\s*(-?[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?)\s*\)?"
    r"\s*_\s*\{\s*(?:\\text\s*\{\s*)?(\w+)\s*\}?\s*\}"
)
_BASED_WORDS = re.compile(
    r"(-?[0-9A-Z]+)\s*(?:\\text\s*\{)?\s*\(?base\s*[-_ ]?\s*\{?(\w+)\}?\)?\s*\}?"
)
_COLONS = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+")
_MATRIX = re.compile(
    r"\\begin\s*\{([pbBvV]?matrix|smallmatrix|array)\}(?:\s*\{[^{}]*\})?(.*)\\end\s*\{\1\}",
    re.DOTALL,
)
_BASES = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
    "sixteen": "16",
}
_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:the )?empty(?: set)?|no (?:real )?solutions?(?: exists?)?",
    re.IGNORECASE,
)
_REALS = re.compile(r"\\mathbb\s*\{R\}|(?:all )?real numbers|all reals", re.IGNORECASE)
_MOST_ITEMS = 200


@dataclasses.dataclass(frozen=True)
class Several:
    """Values in no order, as `1, 2` and `{1, 2}`; `braces` where they were a set."""

    items: tuple[Node, ...]
    braces: bool = False


@dataclasses.dataclass(frozen=True)
class Tuple:
    """Values in order, or an interval, in the brackets `left` and `right`."""

    items: tuple[Node, ...]
    left: str
    right: str


@dataclasses.dataclass(frozen=True)
class Union:
    """Sets, joined."""

    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Named:
    """`x = 5`, or `f(x) = 2x`, which is also an equation: `text`."""

    name: str
    value: Node
    text: str


@dataclasses.dataclass(frozen=True)
class Relations:
    """Inequalities that hold together, or one or the other."""

    texts: tuple[str, ...]
    either: bool


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Node, ...], ...]
    kind: str


@dataclasses.dataclass(frozen=True)
class Based:
    """Digits in a base other than ten."""

    digits: str
    base: str


@dataclasses.dataclass(frozen=True)
class Colons:
    """A ratio or a time of day, part by part, with what follows."""

    parts: tuple[str, ...]
    suffix: str


@dataclasses.dataclass(frozen=True)
class Plain:
    """Words, or anything that is compared letter by letter."""

    text: str


@dataclasses.dataclass(frozen=True)
class Formula:
    """LaTeX to be compared by algebra; `equation` where it has both sides."""

    text: str
    equation: bool = False
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that is written out."""

    literal: Literal
    text: str


Node = (
    Several | Tuple | Union | Named | Relations | Matrix | Based | Colons | Plain | Formula | Number
)


def read(text: str) -> Node:
    """What a normalised answer is made of.

    Raises:
      ValueError: its brackets do not match, or there is nothing where something must be.
    """
    text = text.strip(" ,;")
    text = re.sub(r"^(?:=|\\approx(?![A-Za-z])|\\implies|\\Rightarrow)\s*", "", text)
    if not text:
        raise ValueError("There is nothing to compare.")
    literal = read_literal(text)
    if literal is not None:
        return Number(literal, text)
    if _EMPTY.fullmatch(text):
        return Several((), braces=True)
    if _REALS.fullmatch(text):
        return Tuple((Formula("-\\infty"), Formula("\\infty")), "(", ")")
    for reader in (_dots, _matrix, _set, _named, _several, _relations, _bracketed, _plain):
        node = reader(text)
        if node is not None:
            return node
    return _formula(text)


def _dots(text: str) -> Node | None:
    if not _DOTS.search(text):
        return None
    return Plain(re.sub(r"[\s{}]|\\cdot", "", _DOTS.sub("...", text)))


def _matrix(text: str) -> Node | None:
    match = _MATRIX.fullmatch(text)
    if not match or "\\begin" in match[2]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\[\]]*\])?|\\cr", match[2]) if row.strip()]
    kind = "determinant" if match[1] in ("vmatrix", "Vmatrix") else "matrix"
    return Matrix(tuple(tuple(map(read, row.split("&"))) for row in rows), kind)


def _set(text: str) -> Node | None:
    """Unions of intervals, and conditions in braces."""
    text = re.sub(r"(?<=[)\]}])\s*U\s*(?=[(\[\\])", r" \\cup ", text)
    parts = list(_split(text, ("\\cup",)))
    if len(parts) > 1:
        return Union(tuple(map(read, parts)))
    if text.startswith("\\{") and text.endswith("\\}"):
        condition = re.match(
            r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{R\}\s*)?[|:]\s*(.+)\\\}$", text
        )
        if condition and _RELATION.search(condition[2]):
            return read(condition[2])
    without = re.match(r"\\mathbb\s*\{R\}\s*(?:\\setminus|\\backslash|-)\s*\\\{(.+)\\\}$", text)
    if without:
        points = tuple(rf"x \ne {point}" for point in _split(without[1], (",",)))
        return Relations(points, either=False)
    return None


def _named(text: str) -> Node | None:
    match = _NAME.match(text)
    if not match:
        return None
    rest = text[match.end() :].strip()
    if not rest:
        return None
    sides = [side.strip() for side in _split(rest, ("=",))]
    sign = match[2]
    if len(sides) > 1:
        # x = 3 + 4 = 7; but x = 1, y = 2 are several.
        if any("," in side or "\\lor" in side for side in sides[:-1]) or not all(sides):
            return None
        rest = sides[-1]
    if _RELATION.search(rest) and sign != "\\in":
        return None
    name = re.sub(r"\\text\s*\{([^{}]*)\}|[\s{}]", lambda m: m[1] or "", match[1])
    return Named(name, read(rest), text if sign == "=" else "")


def _several(text: str) -> Node | None:
    parts = [p.strip() for p in _split(text, (",", ";", "\\lor")) if p.strip()]
    if len(parts) > _MOST_ITEMS:
        raise ValueError("There are too many values to compare.")
    if len(parts) > 1:
        if all(_RELATION.search(part) for part in parts) and not any(p[0] in "([" for p in parts):
            return Relations(tuple(parts), either="\\lor" in text)
        items: list[Node] = []
        for part in parts:
            node = read(part)
            items += node.items if isinstance(node, Several) and not node.braces else [node]
        return Several(tuple(items))
    return _signs(text)


def _signs(text: str) -> Node | None:
    r"""The values of an expression with `\pm`, anywhere in it; `\mp` takes the other sign."""
    braced = text.startswith("\\{") and text.endswith("\\}")
    if braced or not re.search(r"\\[pm][mp](?![A-Za-z])", text):
        return None
    plus = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", text))
    minus = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", text))
    both = [re.sub(r"(^|[({\[=,])\s*\+", r"\1", side) for side in (plus, minus)]
    return Several(tuple(map(read, both)))


def _relations(text: str) -> Node | None:
    return Relations((text,), either=False) if _RELATION.search(text) else None


def _bracketed(text: str) -> Node | None:
    for left in _BRACKETS:
        if not text.startswith(left):
            continue
        inside = text[len(left) :]
        for right in ("\\}", "\\rangle", ")", "]"):
            if not inside.endswith(right):
                continue
            inside = inside[: -len(right)].strip()
            if not _balanced(inside):
                return None
            parts = [p.strip() for p in _split(inside, (",", ";"))]
            if left == "\\{" and right == "\\}":
                node = read(inside)
                inner = node.items if isinstance(node, Several) else (node,)
                return Several(tuple(inner), braces=True)
            if len(parts) == 1:
                same = _BRACKETS[left] == right and left in "(["
                return read(inside) if same else None
            return Tuple(tuple(map(read, parts)), left, right)
    reversed_ = re.fullmatch(r"\](.+),(.+)[\[\]]|[\[](.+),(.+)\[", text)
    if reversed_:  # ]0, 1[, as in France
        ends = [g for g in reversed_.groups() if g]
        left = "(" if text[0] == "]" else "["
        right = ")" if text[-1] == "[" else "]"
        return Tuple(tuple(map(read, ends)), left, right)
    return None


def _plain(text: str) -> Node | None:
    for pattern in (_BASED, _BASED_WORDS):
        match = pattern.fullmatch(text)
        base = _BASES.get(match[2].casefold(), match[2]) if match else ""
        if match and base.isdigit() and (match[1][-1:].isdigit() or int(base) > 10):
            if base == "10":
                return read(match[1])
            sign, digits = ("-", match[1][1:]) if match[1].startswith("-") else ("", match[1])
            return Based(sign + (digits.lstrip("0") or "0").upper(), base)
    core, unit = split_unit(text)
    suffix = re.search(r"\s*(?:\\text\s*\{)?\s*([ap])\.?\s*m\.?\s*\}?$", text, re.IGNORECASE)
    if suffix:
        core, unit = text[: suffix.start()], suffix[1].lower() + "m"
    if _COLONS.fullmatch(core):
        return Colons(tuple(p.strip() for p in core.split(":")), unit)
    words = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    if re.fullmatch(r"[A-Z]{2,}|[Nn]o", words):  # the order of letters counts
        return Plain(fold(words))
    letters = "".join(c for c in words if c.isalpha())
    if (
        len(letters) > 2
        and "\\" not in words
        and not re.search(r"[=^_+*/]|(?<!\w)-|\d[A-Za-z]", words)
    ):
        return None if re.search(r"[a-z]\(", words) else Plain(fold(words))
    return None


def _formula(text: str) -> Node:
    sides = [side.strip() for side in _split(text, ("=", "\\approx"))]
    if len(sides) > 1 and all(sides):
        if not any(map(_has_letters, sides)):
            # A computation: 6 * 7 = 42. What is about equal stands behind what is meant.
            return read(sides[0] if "\\approx" in text and "=" not in text else sides[-1])
        return Formula(text, equation="=" in text)
    core, unit = split_unit(text)
    return Formula(core, unit=unit)


def _has_letters(text: str) -> bool:
    without = re.sub(r"\\[A-Za-z]+|(?<![A-Za-z])[ei](?![A-Za-z])", "", split_unit(text)[0])
    return bool(re.search(r"[A-Za-z]", without))


def fold(text: str) -> str:
    """Words without what does not tell them apart."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"[\s~.\u2019'\"*-]+|^\W*(?:the|an?)\s+", " ", text.casefold().strip())
    return re.sub(r"\s+", " ", re.sub(r"[(){}$\\]", "", text)).strip()


def _split(text: str, separators: tuple[str, ...]) -> Iterator[str]:
    """The parts of a text between separators that stand in no brackets."""
    depth, start, i = 0, 0, 0
    while i < len(text):
        if text.startswith(("\\begin", "\\langle", "\\{"), i):
            depth += 1
            i += 2
            continue
        if text.startswith(("\\end", "\\rangle", "\\}"), i):
            depth -= 1
            i += 2
            continue
        found = next((s for s in separators if depth == 0 and text.startswith(s, i)), None)
        longer = found and found[0] == "\\" and text[i + len(found) : i + len(found) + 1].isalpha()
        compared = found == "=" and text[i - 1 : i] in ("<", ">", "!", ":")
        if found and not longer and not compared:
            yield text[start:i]
            start = i = i + len(found)
            continue
        if text[i] in _OPENING:
            depth += 1
        elif text[i] in _CLOSING:
            depth -= 1
        elif text[i] == "\\":
            i += 1
        i += 1
    yield text[start:]


def _balanced(text: str) -> bool:
    """Whether no bracket closes that was not opened inside: `(1)(2)` is not `1)(2` in brackets."""
    depth = 0
    for i, character in enumerate(text):
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        if depth < 0:
            return False
        del i
    return depth == 0
