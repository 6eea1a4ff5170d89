"""Whether a response's final answer is the true one.

`grade` finds the answer (`experiments.text.final_answer`) and compares it with the true one. What
plain comparison does not decide goes to a process of its own (`experiments.grading.pool`).
"""

from experiments.grading.pool import POOL, GradingError, Outcome
from experiments.grading.verdicts import (
    MAX_ANSWER_CHARACTERS,
    TIME_LIMIT_SECONDS,
    Verdict,
    grade,
    grade_choice,
    judge,
    judge_choice,
    verdict,
)
from experiments.text.boxes import last_boxed
from experiments.text.final_answer import MODES, final_text, find_answer

__all__ = [
    "MAX_ANSWER_CHARACTERS",
    "MODES",
    "POOL",
    "TIME_LIMIT_SECONDS",
    "GradingError",
    "Outcome",
    "Verdict",
    "final_text",
    "find_answer",
    "grade",
    "grade_choice",
    "judge",
    "judge_choice",
    "last_boxed",
    "verdict",
]
