"""Methods that mix a reward and a teacher: each a plan of what every token does in one loss."""

from distill import __version__
from family.loss import Objective, PlannedBatch, PlannedSums, SurrogateSettings
from family.methods import METHODS, Method
from family.tokens import Plan, Tokens
from family.train import init_method_state, make_planned_step

__all__ = [
    "METHODS",
    "Method",
    "Objective",
    "Plan",
    "PlannedBatch",
    "PlannedSums",
    "SurrogateSettings",
    "Tokens",
    "__version__",
    "init_method_state",
    "make_planned_step",
]
