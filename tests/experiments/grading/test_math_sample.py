"""MATH's worked solutions, which the project carries: right against their own answers alone."""

from experiments.data.sources import load_source
from experiments.grading import grade


def test_worked_solutions_meet_their_own_answers_alone():
    examples = list(load_source({"name": "sample/math"}, needs_answer=True))
    assert len(examples) == 40
    verdicts = [
        (grade(one.reference, other.answer), one.answer == other.answer)
        for one in examples
        for other in examples
    ]
    wrong = sum(found != label for found, label in verdicts)
    assert sum(label for _, label in verdicts) >= 40
    assert wrong <= len(verdicts) / 1000
