r"""References as text and as tokens: reasoning, boxed answer, and where the reasoning may be cut.

ATESD (arXiv 2605.11458, Eq. 2) shows a teacher the first floor(a |reasoning|) tokens of a
reference's reasoning and always its boxed answer. All cuts of a reference are found here, once, on
the host; `atesd.exposure` looks them up on the device.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Annotated

from models.checks import Count, one_of, require

Unit = Annotated[str, one_of("sentence", "token")]

EncodeWithEnds = Callable[[str], tuple[list[int], list[int]]]

_BOXES = ("\\boxed{", "\\fbox{")
_BRACES = re.compile(r"\\boxed\{|\\fbox\{|\\.|[{}]", re.DOTALL)
# GSM8K ends its solutions in "#### 42".
_GSM8K_ANSWER = re.compile(r"####\s*(\S.*)")
_GROUPED_NUMBER = re.compile(r"[-+$]*\d{1,3}(,\d{3})+(\.\d+)?")
_WORD = re.compile(r"(\S+)(\s*)")
# What may stand between the mark that ends a sentence and the space behind it.
_CLOSERS = "\"'”’»)]}$*_`\\"
_MARKS = (".", "!", "?")
_CONTINUES = "=+-*/<>,;:"


@dataclasses.dataclass(frozen=True)
class Reference:
    r"""A reference solution in two parts, which joined are the text that is shown.

    Attributes:
      reasoning: everything before the answer; empty if that is white space at most.
      answer: the boxed answer as shown, `\boxed{8}`.
      had_answer: the text itself brought an answer; else it was made from the known one.
    """

    reasoning: str
    answer: str
    had_answer: bool


@dataclasses.dataclass(frozen=True)
class ReferenceTokens:
    """One teacher context in pieces: head, reasoning[:cut], answer, tail.

    Attributes:
      head, tail: ids before and after the reference; the problem is in one of them.
      reasoning: ids of the reasoning that may be shown, R of them.
      answer: ids of the boxed answer.
      cuts: for every n in 0 .. R the largest allowed cut <= n, in tokens; `cuts[R] == R`.
      had_answer: as in `Reference`.
      empty: the reference has no reasoning: exposure changes nothing.
      overlong: the reasoning was longer than its budget and has lost its end.
    """

    head: tuple[int, ...]
    reasoning: tuple[int, ...]
    answer: tuple[int, ...]
    tail: tuple[int, ...]
    cuts: tuple[int, ...]
    had_answer: bool
    empty: bool
    overlong: bool


def split_reference(text: str, answer: str) -> Reference:
    r"""Splits a reference into its reasoning and its boxed answer.

    The answer is, in this order: what follows GSM8K's `####` on the last line, put into a box (a
    grouped number such as 70,000 loses its commas); the last complete `\boxed{...}` or
    `\fbox{...}`, braces balanced, as it is written; or a box made from `answer`, on a line of its
    own behind the whole text. What follows the last box, such as a closing `$`, is dropped.

    Args:
      text: the reference; may be empty.
      answer: the known answer, without a box.

    Raises:
      ValueError: neither the text nor `answer` holds an answer.

    Example:
      >>> split_reference("6 * 7 = 42.\n#### 42", answer="42")
      Reference(reasoning='6 * 7 = 42.\n', answer='\\boxed{42}', had_answer=True)
    """
    # Searched in the last line alone: the time grows with the text, and not with its square.
    last = len(text.rstrip())
    worked = _GSM8K_ANSWER.search(text, text.rfind("\n", 0, last) + 1, last)
    box = _last_box(text)
    if worked and (box is None or box[1] <= worked.start()):
        shown = worked[1]
        if _GROUPED_NUMBER.fullmatch(shown):
            shown = shown.replace(",", "")
        return _reference(text[: worked.start()], f"\\boxed{{{shown}}}")
    if box is not None:
        start, end = box
        # "#### \boxed{42}": the marker is no part of the reasoning.
        before = worked.start() if worked and worked.start(1) == start else start
        return _reference(text[:before], text[start:end])
    if not answer.strip():
        raise ValueError(
            "The reference has no boxed answer and none is known to append; give one, or leave "
            "the example out."
        )
    own_line = "" if text[-1:].isspace() else "\n"
    return _reference(text + own_line, f"\\boxed{{{answer.strip()}}}", had_answer=False)


def _reference(reasoning: str, answer: str, had_answer: bool = True) -> Reference:
    return Reference(reasoning if reasoning.strip() else "", answer, had_answer)


def _last_box(text: str) -> tuple[int, int] | None:
    """Start and end of the last complete box that lies in no other complete box."""
    open_braces: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{" or token in _BOXES:
            open_braces.append((match.start(), token in _BOXES))
        elif token == "}" and open_braces:
            # Inner boxes close first, so that an outer one overwrites them.
            start, is_box = open_braces.pop()
            if is_box:
                last = (start, match.end())
    return last


def sentence_ends(text: str) -> list[int]:
    """Offsets just past the sentences and lines of a text, in characters, rising.

    A sentence ends at `.`, `!` or `?`, perhaps followed by closing quotes, brackets or `$`, where
    white space and then neither a lower-case letter nor an operator such as `=` follow: 3.14,
    `e.g. this` and `5! = 120` hold no end, `Mr. Smith` and `1. First` do. A line ends at a newline.
    White space belongs to the sentence before it; the end of the text is an end, too.
    """
    ends = []
    for match in _WORD.finditer(text):
        word, gap = match.groups()
        after = text[match.end() : match.end() + 1]
        goes_on = after.islower() or after in _CONTINUES
        marked = word.rstrip(_CLOSERS).endswith(_MARKS)
        if not after or "\n" in gap or (marked and not goes_on):
            ends.append(match.end())
    return ends


def tokenize_reference(
    reference: Reference,
    head: Sequence[int],
    tail: Sequence[int],
    encode_with_ends: EncodeWithEnds,
    max_reasoning: int,
    unit: Unit = "sentence",
) -> ReferenceTokens:
    """Token ids of a reference between `head` and `tail`, and where its reasoning may be cut.

    With `unit = "sentence"` a cut lies behind the token that ends a sentence or line, whatever that
    token spills over, and behind the tokens that hold nothing but the white space that follows. A
    space that begins the next word's token stays with that word.

    Args:
      reference: from `split_reference`.
      head, tail: ids before and after the reference.
      encode_with_ends: text to its ids and the character offset behind each token.
      max_reasoning: budget in tokens. Longer reasoning keeps what lies before the last allowed cut
        within it, nothing if there is none, and the exposure is a fraction of what it keeps.
      unit: `sentence`, or `token` for a cut behind any token.

    Raises:
      ValueError: an unknown `unit`, or no budget.
    """
    require("exposure.unit", unit, Unit)
    require("exposure.max_reasoning", max_reasoning, Count)
    ids, ends = encode_with_ends(reference.reasoning)
    cuts = _cuts(reference.reasoning, ends, unit)
    overlong = len(ids) > max_reasoning
    kept = cuts[max_reasoning] if overlong else len(ids)
    return ReferenceTokens(
        head=tuple(head),
        reasoning=tuple(ids[:kept]),
        answer=tuple(encode_with_ends(reference.answer)[0]),
        tail=tuple(tail),
        cuts=tuple(cuts[: kept + 1]),
        had_answer=reference.had_answer,
        empty=not ids,
        overlong=overlong,
    )


def _cuts(text: str, ends: Sequence[int], unit: str) -> list[int]:
    count = len(ends)
    if unit == "token":
        return list(range(count + 1))
    allowed = {0, count}
    for end in sentence_ends(text):
        visible = len(text[:end].rstrip())
        closing = bisect.bisect_left(ends, visible) + 1
        allowed.add(min(max(closing, bisect.bisect_right(ends, end)), count))
    return list(itertools.accumulate((n if n in allowed else 0 for n in range(count + 1)), max))
