"""Rollouts that student, teacher and data share: ImitKD, SKD and GKD."""

from distill import __version__
from mixtures.mixing import mix, on_policy_rows
from mixtures.policies import SKD, ImitKD
from mixtures.rollout import (
    StepRecord,
    StepRolloutSettings,
    make_step_rollout,
    make_step_slots,
)

__all__ = [
    "SKD",
    "ImitKD",
    "StepRecord",
    "StepRolloutSettings",
    "__version__",
    "make_step_rollout",
    "make_step_slots",
    "mix",
    "on_policy_rows",
]
