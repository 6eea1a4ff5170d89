"""Evaluation as a run's config asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.config.tree import Config
from experiments.evaluate.evaluation import evaluate
from experiments.evaluate.settings import EvaluationOptions
from experiments.machine.interruption import check
from experiments.pair.model import Model
from experiments.pair.pair import Pair
from experiments.tasks.example import Example


def measure(
    config: Config,
    pair: Pair,
    model: Model,
    examples: Sequence[Example],
    samples: int | None = None,
    as_teacher: bool = False,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary and every graded sample, as `evaluate` gives them, by the config's `evaluation`.

    Args:
      model: the one that answers.
      samples: per problem, in place of the config's.
      as_teacher: with the teacher's prompts instead of the student's.

    Raises:
      Interrupted: a signal asked the process to end.
    """
    e = config.evaluation
    settings = EvaluationOptions(
        n=e.samples if samples is None else samples,
        max_new_tokens=e.max_tokens,
        temperature=e.temperature,
        top_p=e.top_p,
        batch_size=e.batch_size,
        answer=e.answer,
        seed=config.seed,
    )
    assert model.params is not None
    return evaluate(
        model,
        pair.tokenizer,
        examples,
        settings,
        eos=pair.eos_ids,
        render=pair.teacher_render if as_teacher else pair.render,
        prompt_width=config.prompt.max_tokens,
        on_batch=lambda done, total: check(
            f"{done} of {total} samples were graded, and begin anew; all that was finished is kept."
        ),
    )
