"""Whether prompts and responses fit into the models' positions, asked before any work."""

from __future__ import annotations

from typing import Any

from experiments.pair.pair import Pair
from experiments.rollouts.recipe import Recipe


def check_rollout(config: Any, recipe: Recipe) -> None:
    """Raises where a rollout could be longer than a model's context.

    Raises:
      ValueError: names the fields and the limit.
    """
    what = f"{recipe.section}.max_total={recipe.max_total}"
    _check(config, recipe.pair, what, recipe.max_total)


def check_evaluation(config: Any, pair: Pair) -> None:
    """Raises where a sample of an evaluation could be longer than a model's context.

    Raises:
      ValueError: names the fields and the limit.
    """
    most = config.evaluation.max_tokens
    _check(config, pair, f"evaluation.max_tokens={most}", most)


def _check(config: Any, pair: Pair, what: str, most: int) -> None:
    needed = config.prompt.max_tokens + most
    models = {"student": pair.student_config, "teacher": pair.teacher_config}
    for role, model in models.items():
        if model is not None and needed > model.max_positions:
            raise ValueError(
                f"prompt.max_tokens={config.prompt.max_tokens} and {what} are {needed} tokens, but "
                f"the {role} has {model.max_positions} positions (max_position_embeddings in its "
                "config.json). Lower one of them."
            )
