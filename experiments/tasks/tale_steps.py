"""The true steps of a tale, read from its sentences, and whether a written step is one of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from experiments.tasks.chain import apply
from experiments.tasks.tale import GIVEN, PHRASES, TITLE


def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(
        phrase.replace(".", r"\.").format(who=r"(?P<who>\w+)", n=r"(?P<n>\d)", of=r"(?P<of>\w+)")
    )


_GIVEN = _pattern(GIVEN)
_RULES = tuple((op, _pattern(phrase)) for op, phrases in PHRASES.items() for phrase in phrases)
_SUM = r"(?P<before>\d) (?P<operation>[-+*]) (?P<n>\d)"
# `Bo: Al 7 + 3, Bo 0.` and `So 7 + 3 is 0.`
_NAMES_STEP = re.compile(rf"(?P<who>\w+): (?P<of>\w+) {_SUM}, (?P=who) (?P<value>\d)\.")
_PLAN_STEP = re.compile(rf"So {_SUM} is (?P<value>\d)\.")


class Step(NamedTuple):
    """`who` has `value`, which is `operation` `n` on the `before` that `of` has."""

    who: str
    of: str
    before: int
    operation: str
    n: int
    value: int


def true_steps(problem: str) -> list[Step] | None:
    """The steps of a tale, in order; None where the text is no tale."""
    title, *sentences = problem.split("\n")
    if title != TITLE:
        return None
    have: dict[str, int] = {}
    steps = []
    for sentence in sentences:
        if given := _GIVEN.fullmatch(sentence):
            have[given["who"]] = int(given["n"])
        for operation, rule in _RULES:
            if found := rule.fullmatch(sentence):
                before, n = have[found["of"]], int(found["n"])
                value = have[found["who"]] = apply(before, operation, n)
                steps.append(Step(found["who"], found["of"], before, operation, n, value))
    return steps


def last_step_is_right(steps: list[Step], text: str) -> bool | None:
    """Whether the last step of a text is a true one; None where the text does not end in a step.

    A step without names counts as the one whose turn it is, by the lines before it; one that
    repeats the line before, in another way or after a repair, is taken for the next.
    """
    *before, last = text.rstrip().split("\n\n")
    if match := _NAMES_STEP.fullmatch(last):
        turn = [step for step in steps if step.who == match["who"]]
    elif match := _PLAN_STEP.fullmatch(last):
        done = sum(bool(_NAMES_STEP.fullmatch(s) or _PLAN_STEP.fullmatch(s)) for s in before)
        turn = steps[done : done + 1]
    else:
        return None
    if not turn:
        return False
    written = match.groupdict()
    return all(str(getattr(turn[0], field)) == value for field, value in written.items())
