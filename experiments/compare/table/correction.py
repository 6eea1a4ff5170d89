r"""Whether a student takes its own errors back: how often it says so, and how often that helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from experiments.tasks.chain import apply
from experiments.tasks.tale_steps import last_step_is_right, true_steps

_PROBLEM = re.compile(r"a=(\d)((?:,[b-z]=[+*-]\d)+)\?")
_OPERATION = re.compile(r",([b-z])=([+*-])(\d)")
# `b=3+8=1.` or `+8 on 3: b=1.`
_STUDENT_STEP = re.compile(r"([b-z])=(\d)([+*-])(\d)=(\d)\.")
_TEACHER_STEP = re.compile(r"([+*-])(\d) on (\d): ([b-z])=(\d)\.")


def self_correction(
    samples: Iterable[Mapping[str, Any]], revision: str = "However,"
) -> dict[str, Any] | None:
    """Shares over graded samples; None without samples.

    Args:
      samples: records with `problem`, `text` and `right`.
      revision: the text that takes a step back.

    Returns:
      `samples` in all, the share `revised` that contains the revision, and among those the share
      `right_if_revised`, and `right_if_not` among the others. On the embedded tasks the last step
      before the first revision is judged too: the share `wrong_before` of it among the revised, and
      among these the share `repaired` that ends right; None elsewhere, and None where a share has
      nothing to be a share of.
    """
    texts = [(s["problem"], s["text"], bool(s["right"])) for s in samples]
    if not texts:
        return None
    revised = [sample for sample in texts if revision in sample[1]]
    judged = [
        (verdict, right)
        for problem, text, right in revised
        if (verdict := step_is_right(problem, text.partition(revision)[0])) is not None
    ]
    return {
        "samples": len(texts),
        "revised": len(revised) / len(texts),
        "right_if_revised": _share([right for _, _, right in revised]),
        "right_if_not": _share([right for _, text, right in texts if revision not in text]),
        "judged": len(judged),
        "wrong_before": _share([not verdict for verdict, _ in judged]),
        "repaired": _share([right for verdict, right in judged if not verdict]),
        "kept": _share([right for verdict, right in judged if verdict]),
    }


def step_is_right(problem: str, text: str) -> bool | None:
    """Whether the last step of a text is what an embedded task's problem asks for there.

    Right are the operation and operand of the step's variable on the true value before it, and the
    true result. None where the problem is another task's, or the text does not end in a step.
    """
    tale = true_steps(problem)
    if tale is not None:
        return last_step_is_right(tale, text)
    step = text.rstrip().rpartition("\n\n")[2]
    truth = _chain_steps(problem)
    if truth is None:
        return None
    if match := _STUDENT_STEP.fullmatch(step):
        name, before, operation, operand, result = match.groups()
    elif match := _TEACHER_STEP.fullmatch(step):
        operation, operand, before, name, result = match.groups()
    else:
        return None
    return truth.get(name) == (int(before), operation, int(operand), int(result))


def _chain_steps(problem: str) -> dict[str, tuple[int, str, int, int]] | None:
    """By variable: the value before, operation, operand and result."""
    match = _PROBLEM.fullmatch(problem)
    if match is None:
        return None
    steps, value = {}, int(match[1])
    for name, operation, operand in _OPERATION.findall(match[2]):
        result = apply(value, operation, int(operand))
        steps[name] = (value, operation, int(operand), result)
        value = result
    return steps


def _share(verdicts: list[bool]) -> float | None:
    return float(np.mean(verdicts)) if verdicts else None
