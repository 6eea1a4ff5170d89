"""One problem with its answer: the unit of every data set."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Example:
    """A problem and what is known about its solution.

    Attributes:
      id: unique within its source; says where to find the record (`test.jsonl:17`).
      problem: the text to be rendered into a prompt.
      reference: a worked solution, empty where the data has none.
      answer: the true final answer, to grade against; of a multiple choice, its letter; empty where
        the data has none, and nothing can be graded.
      source: name of the data set.
      group: what results are split by, such as MATH's level; empty without.
      choices: the texts of A, B, ... of a multiple choice, which the problem shows; empty
        elsewhere.
      reading: how a response's final answer is found, as in
        `experiments.text.final_answer.find_answer`.
    """

    id: str
    problem: str
    reference: str
    answer: str
    source: str
    group: str = ""
    choices: tuple[str, ...] = ()
    reading: str = "boxed"
