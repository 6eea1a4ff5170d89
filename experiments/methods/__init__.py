"""Methods by name: what `config.method` may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.methods.atesd import AtesdRecipe
from experiments.methods.distillation import DistillationRecipe
from experiments.methods.grpo import GrpoRecipe
from experiments.methods.motab import MotabRecipe
from experiments.methods.offline import Offline
from experiments.methods.online import Online
from experiments.methods.protocol import Method
from experiments.methods.sft import Sft
from experiments.methods.topd import TopdRecipe
from experiments.pair.pair import Pair
from experiments.rollouts.positions import check_rollout
from experiments.rollouts.recipe import Recipe
from experiments.workdir.workdir import Workdir

RECIPES: dict[str, Callable[[Any, Pair], Recipe]] = {
    "motab": MotabRecipe,
    "distillation": DistillationRecipe,
    "grpo": GrpoRecipe,
    "atesd": AtesdRecipe,
    "topd": TopdRecipe,
}
MODES = ("online", "offline")


def make_recipe(config: Any, pair: Pair) -> Recipe:
    """The rollout and the loss that a config asks for.

    Raises:
      ValueError: its method has none, or its fields are out of range.
    """
    if config.method not in RECIPES:
        raise ValueError(f"method={config.method!r} writes no trajectories: {tuple(RECIPES)} do.")
    if config.synthesis.mode not in MODES:
        raise ValueError(f"synthesis.mode={config.synthesis.mode!r}: choose one of {MODES}.")
    copies = config.synthesis.trajectories_per_prompt
    online = config.synthesis.mode == "online"
    if copies < 1 or (online and config.batch_size % copies):
        raise ValueError(
            f"batch_size={config.batch_size} is not a multiple of "
            f"synthesis.trajectories_per_prompt={copies}."
        )
    recipe = RECIPES[config.method](config, pair)
    check_rollout(config, recipe)
    return recipe


def make_method(config: Any, pair: Pair, workdir: Workdir) -> Method:
    """The method that a config asks for.

    Raises:
      ValueError: there is none of that name, or its fields are out of range.
    """
    if config.method == "sft":
        return Sft(config, pair)
    if config.method not in RECIPES:
        raise ValueError(f"method={config.method!r}: choose one of {(*RECIPES, 'sft')}.")
    recipe = make_recipe(config, pair)
    if config.synthesis.mode == "online":
        return Online(config, pair, recipe)
    return Offline(config, pair, recipe, workdir.path)
