"""Whether texts fit into the models' positions, asked before weights are read."""

from __future__ import annotations

from collections.abc import Mapping

from models import ModelConfig


def check_positions(lengths: Mapping[str, int], models: Mapping[str, ModelConfig | None]) -> None:
    """Raises where a text could be longer than a model's context.

    Args:
      lengths: most tokens of a text, by the fields that say so: `Config.lengths`.
      models: by role; None where there is none.

    Raises:
      ValueError: names the fields and the limit.
    """
    for what, needed in lengths.items():
        for role, model in models.items():
            if model is not None and needed > model.max_positions:
                raise ValueError(
                    f"{what} are {needed} tokens, but the {role} has {model.max_positions} "
                    "positions (max_position_embeddings in its config.json). Lower one of them."
                )
