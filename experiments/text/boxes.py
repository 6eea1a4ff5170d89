r"""Boxed answers: `\boxed{}` and `\fbox{}`, with braces balanced, without braces, or cut off."""

from __future__ import annotations

import dataclasses
import re

_COMMAND = r"\\(?:boxed|fbox|framebox)(?![A-Za-z])"
# In the order in which TeX reads them: an escaped brace is no brace.
_TOKEN = re.compile(rf"(?P<box>{_COMMAND})(?:\s*(?P<open>\{{))?|\\.|(?P<brace>[{{}}])", re.DOTALL)
# What an unbraced box holds: a number on its own, or all up to the end of the formula.
_NUMBER = re.compile(r"\s*([-+]?\d[\d,]*(?:\.\d+)?)(?=[.,;]?(?:\s|$|\$))")
_FORMULA = re.compile(r"\s*([^$\n]{1,200}?)\s*(?=\$|\\\)|\\\]|\\end\{)")
_SYMBOL = re.compile(r"\s*([A-Za-z])(?![A-Za-z])")
# What may stand between boxes that make one list.
_BETWEEN = re.compile(
    r"(?:[\s$,;&*]|\\[\\,;:! ()\[\]]|\\q?quad|\\(?:text|mbox)\{[\s,]*(?:and|or)?[\s,]*\}"
    r"|\b(?:and|or)\b|\b[A-Za-z]\s*=)*"
)
_BETWEEN_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Box:
    """A box in a text.

    Attributes:
      start, end: of the whole command, in characters.
      content: what it holds, stripped; None where the text ends before the box does.
    """

    start: int
    end: int
    content: str | None


def find_boxes(text: str) -> list[Box]:
    """The boxes of a text in the order in which they begin, without those inside another.

    Of a box that is cut off, those inside it are listed too.
    """
    found: list[Box] = []
    open_braces: list[
        tuple[int, int]
    ] = []  # where the box or brace begins, and what it holds; or -1
    for match in _TOKEN.finditer(text):
        if match["open"]:
            open_braces.append((match.start(), match.end()))
        elif match["box"]:
            bare = _unbraced(text, match.start(), match.end())
            if bare is not None:
                found.append(bare)
        elif match["brace"] == "{":
            open_braces.append((-1, match.end()))
        elif match["brace"] == "}" and open_braces:
            start, inside = open_braces.pop()
            if start >= 0:
                while found and found[-1].start > start:
                    found.pop()
                found.append(Box(start, match.end(), text[inside : match.start()].strip()))
    found += [Box(start, len(text), None) for start, _ in open_braces if start >= 0]
    return sorted(found, key=lambda box: box.start)


def _unbraced(text: str, start: int, end: int) -> Box | None:
    """The box whose command ends at `end` without a brace; None where the command is only named."""
    if not text[end:].strip():
        return Box(start, len(text), None)
    for pattern in (_NUMBER, _FORMULA, _SYMBOL):
        match = pattern.match(text, end)
        if match:
            return Box(start, match.end(), match[1])
    return None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` or `\fbox{}` of a text.

    None without any, and where the last one is cut off: what stands before it was not the end.
    """
    boxes = find_boxes(text)
    return boxes[-1].content if boxes else None


def boxed_answer(text: str) -> str | None:
    r"""The last box of a text; adjacent ones, as in `\boxed{1}, \boxed{2}`, are one list.

    None without any, and where the last one is cut off.
    """
    boxes = find_boxes(text)
    if not boxes or boxes[-1].content is None:
        return None
    listed = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.end : listed[-1].start]
        if len(between) > _BETWEEN_CHARACTERS or not _BETWEEN.fullmatch(between):
            break
        if box.content and box.content != listed[-1].content:
            listed.append(box)
    if not boxes[-1].content:
        return ""
    return ", ".join(str(box.content) for box in reversed(listed))
