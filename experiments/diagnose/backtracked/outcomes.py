r"""What texts from several starts come to, compared: corrections.json.

breached, problems     solutions that breach, and problems that have any
as_written             POINT: accuracy of the student's own breached solutions
writers   for teacher and student: {
    "starts":      by start {"accuracy", "written", "kept", "truncated": POINT}; tokens that
                   the writer wrote, and tokens of the student before them
    "differences": by other start, the root less it: {"differ": solutions in which the two are
                   not the same step, "accuracy", "written", "kept": {"all", "differing":
                   POINT}}, paired by solution; where the two are the same step the difference
                   is 0 by construction
}
POINT     as in monitor.json: over solutions, the interval over problems; a solution is the mean
          of its corrections
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.diagnose.backtracked.continuations import WRITERS, identity
from experiments.diagnose.backtracked.starts import STARTS, Breached
from experiments.diagnose.monitored.pooled import pooled

_MEASURES = ("accuracy", "written", "kept", "truncated")


def compare_starts(
    breached: Sequence[Breached],
    lines: Mapping[int, Mapping[str, Any]],
    corrections: int,
    max_new_tokens: int,
) -> dict[str, Any]:
    """What corrections.json holds, without settings and environment.

    Args:
      lines: by their identity; all that `breached` asks for.
      corrections, max_new_tokens: that the identities were made with.
    """
    problem_R = np.array([x.solution.problem for x in breached])
    every = np.ones(len(breached), bool)

    def of(x: Breached, writer: str, start: str) -> list[float]:
        step = x.starts[start]
        found = [
            lines[identity(x.sample_id, writer, step, copy, corrections, max_new_tokens)]
            for copy in range(corrections)
        ]
        rows = [(y["right"], len(y["token_ids"]), y["kept"], y["truncated"]) for y in found]
        return np.mean(np.array(rows, np.float64), axis=0).tolist()

    writers = {}
    for writer in WRITERS:
        values = {s: np.array([of(x, writer, s) for x in breached]) for s in STARTS}
        differences = {}
        for other in STARTS[1:]:
            apart = np.array([x.starts[STARTS[0]] != x.starts[other] for x in breached])
            less = values[STARTS[0]] - values[other]
            differences[other] = {
                "differ": int(apart.sum()),
                **{
                    name: {
                        "all": pooled(less[:, i], every, problem_R),
                        "differing": pooled(less[:, i], apart, problem_R),
                    }
                    for i, name in enumerate(_MEASURES[:3])
                },
            }
        writers[writer] = {
            "starts": {
                start: {name: pooled(x[:, i], every, problem_R) for i, name in enumerate(_MEASURES)}
                for start, x in values.items()
            },
            "differences": differences,
        }
    right_R = np.array([x.solution.line["right"] for x in breached])
    return {
        "breached": len(breached),
        "problems": len(np.unique(problem_R)),
        "as_written": pooled(right_R, every, problem_R),
        "writers": writers,
    }
