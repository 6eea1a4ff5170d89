"""Methods by name: what `config.method` may be."""

from __future__ import annotations

import family
from experiments.config.tree import Config, SftConfig, WritingConfig
from experiments.methods.atesd import AtesdRecipe
from experiments.methods.distillation import DistillationRecipe
from experiments.methods.grpo import GrpoRecipe
from experiments.methods.motab import MotabRecipe
from experiments.methods.offline import Offline
from experiments.methods.online import Online
from experiments.methods.planned import LightningRecipe, PlannedRecipe
from experiments.methods.protocol import Method
from experiments.methods.sft import Sft
from experiments.methods.topd import TopdRecipe
from experiments.pair.pair import Pair
from experiments.pair.positions import check_positions
from experiments.rollouts.recipe import Recipe
from experiments.workdir.workdir import Workdir

RECIPES: dict[str, type[Recipe]] = {
    "motab": MotabRecipe,
    "distillation": DistillationRecipe,
    "grpo": GrpoRecipe,
    "atesd": AtesdRecipe,
    "topd": TopdRecipe,
    **dict.fromkeys(family.METHODS, PlannedRecipe),
    "lightning": LightningRecipe,
}


def require_writing(config: Config) -> WritingConfig:
    """The config, of a method that writes trajectories.

    Raises:
      ValueError: it does not.
    """
    if not isinstance(config, WritingConfig) or config.method not in RECIPES:
        raise ValueError(f"method={config.method!r} writes no trajectories: {tuple(RECIPES)} do.")
    return config


def make_recipe(config: Config, pair: Pair) -> Recipe:
    """The rollout and the loss that a config asks for.

    Raises:
      ValueError: its method has none, or does not fit the models or the mesh.
    """
    writing = require_writing(config)
    roles = {"student": pair.student_config, "teacher": pair.teacher_config}
    check_positions(config.lengths(), roles)  # the pair may have been loaded for another config
    return RECIPES[config.method].from_config(writing, pair)


def make_method(config: Config, pair: Pair, workdir: Workdir) -> Method:
    """The method that a config asks for.

    Raises:
      ValueError: it does not fit the models, the mesh or the data.
    """
    if isinstance(config, SftConfig):
        return Sft(config, pair)
    writing, recipe = require_writing(config), make_recipe(config, pair)
    if writing.synthesis.mode == "online":
        return Online(writing, pair, recipe)
    return Offline(writing, pair, recipe, workdir.path)
