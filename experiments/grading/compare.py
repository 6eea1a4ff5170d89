"""Whether two answers are equal, by math-verify. Runs in the grading process."""

from __future__ import annotations


def equal(prediction: str, answer: str) -> bool:
    """math-verify's verdict."""
    from math_verify import parse, verify

    # No time limits of its own: they need this thread's signals and do not stop big integers.
    predicted = parse(f"\\boxed{{{prediction}}}", parsing_timeout=None)
    gold = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    return bool(verify(gold, predicted, timeout_seconds=None))
