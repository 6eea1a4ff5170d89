"""Verdicts on responses: right or wrong, and whether a comparison ran out of time."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from experiments.grading.compare import quick
from experiments.grading.pool import POOL, Outcome
from experiments.tasks.example import Example
from experiments.text.boxes import boxed_answer, find_boxes
from experiments.text.final_answer import BOXED, TAIL_CHARACTERS, final_text, find_answer

# Of processor time; by the clock, on a busy machine, four times as many.
TIME_LIMIT_SECONDS = 5.0
# A final answer is short. Longer text is not looked at: parsing time grows faster than length.
MAX_ANSWER_CHARACTERS = 1_000
# Nor is one nested deeper, which would only exhaust the parser's stack.
MAX_DEPTH = 40
_TEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
# "C", "(C)", "C.", "C) its text", "Option C".
_LETTER = re.compile(r"(?:(?:option|choice)\s+)?\(?([A-Z])(?:[).:](?:\s.*)?)?", re.DOTALL)
_SAID_LETTER = re.compile(
    r"\b(?i:answer)(?:\s+(?:is|choice|option|would|must|be))*\s*:?\s*(?:option\s+|choice\s+)?"
    r"\(?([A-Z])\b(?!')",
)
_NO_MARKUP = str.maketrans("", "", "*$_`")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """On one response.

    Attributes:
      right: whether its final answer is the true one.
      final: its final answer as it stands there; None where it gives none.
      timed_out: whether the comparison ran out of time or memory. It then counts as wrong.
    """

    right: bool
    final: str | None
    timed_out: bool = False


def grade(response: str, answer: str, mode: str = BOXED) -> bool:
    r"""Whether the final answer of `response` is mathematically equal to `answer`.

    The final answer is what `experiments.text.final_answer.find_answer` finds behind `</think>`. A
    response without one is wrong, and so is one whose comparison takes more than
    `TIME_LIMIT_SECONDS`, or that is longer than `MAX_ANSWER_CHARACTERS`. Usable in any thread.

    Args:
      mode: `boxed` or `flexible`, as in `find_answer`.

    Raises:
      GradingError: answers cannot be compared on this machine.
      ValueError: there is no such mode.
    """
    return judge(response, answer, mode).right


def judge(response: str, answer: str, mode: str = BOXED) -> Verdict:
    """`grade`, with the answer that was found, and whether the comparison took too long."""
    final = find_answer(final_text(response), mode)
    if final is None:
        return Verdict(False, None)
    outcome = _compare(final.strip(), answer.strip())
    return Verdict(outcome is Outcome.EQUAL, final, outcome is Outcome.UNDECIDED)


def grade_choice(response: str, answer: str, choices: Sequence[str]) -> bool:
    r"""Whether a response to a multiple choice settles on the letter `answer`.

    What counts is the last box after `</think>`, as a letter, a letter and its text, or the text of
    a choice, which is compared as in `grade`; without any box, the last letter behind the word
    "answer". Two boxed letters are no answer.

    Args:
      choices: the texts of A, B, ...

    Raises:
      GradingError: answers cannot be compared on this machine.
    """
    return judge_choice(response, answer, choices).right


def judge_choice(response: str, answer: str, choices: Sequence[str]) -> Verdict:
    """`grade_choice`, with what was found, and whether a comparison took too long."""
    text = final_text(response)
    if not find_boxes(text):
        tail = text[-TAIL_CHARACTERS:].translate(_NO_MARKUP)
        said = _SAID_LETTER.findall(tail)
        return Verdict(bool(said) and said[-1].upper() == answer, said[-1] if said else None)
    boxed = boxed_answer(text)
    if boxed is None or len(boxed) > MAX_ANSWER_CHARACTERS:
        return Verdict(False, boxed)
    plain = _TEX_TEXT.sub(r"\1", boxed).strip(" .$*")
    letter = _LETTER.fullmatch(plain)
    if letter:
        return Verdict(letter[1].upper() == answer, boxed)
    outcomes = [_compare_choice(boxed, choice) for choice in choices]
    equal = [i for i, outcome in enumerate(outcomes) if outcome is Outcome.EQUAL]
    return Verdict(equal == [ord(answer) - ord("A")], boxed, Outcome.UNDECIDED in outcomes)


def _compare_choice(boxed: str, choice: str) -> Outcome:
    def folded(text: str) -> str:
        return " ".join(_TEX_TEXT.sub(r"\1", text).casefold().split()).strip(" .$")

    if folded(boxed) == folded(choice):
        return Outcome.EQUAL
    return _compare(boxed.strip(), choice.strip(" .$"))


def verdict(response: str, example: Example, mode: str = "") -> Verdict:
    """`judge`, or `judge_choice` where the example has choices.

    Args:
      mode: in place of the one that the example's data set names.
    """
    if example.choices:
        return judge_choice(response, example.answer, example.choices)
    return judge(response, example.answer, mode or example.reading)


def _depth(text: str) -> int:
    """How deep the brackets of a text nest."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


@functools.lru_cache(maxsize=100_000)
def _compare(prediction: str, answer: str) -> Outcome:
    if not prediction or not answer:
        return Outcome.UNEQUAL
    if prediction == answer:
        return Outcome.EQUAL
    if max(len(prediction), len(answer)) > MAX_ANSWER_CHARACTERS:
        return Outcome.UNEQUAL
    if max(_depth(prediction), _depth(answer)) > MAX_DEPTH:
        return Outcome.UNEQUAL
    decided = quick(prediction, answer)
    if decided is not None:
        return Outcome.EQUAL if decided else Outcome.UNEQUAL
    return POOL.ask(prediction, answer, TIME_LIMIT_SECONDS)
