"""What methods share: trajectories, losses, rollouts, train steps, shardings."""

# ruff: noqa: E402 - what is imported below must be ours
from distill.shadowing import require_ours

require_ours("models")

from distill.losses.divergence import (
    divergence,
    forward_kl,
    jsd,
    reverse_kl,
    top_k_divergence,
    top_k_entropy,
)
from distill.losses.log_probs import token_log_probs
from distill.losses.signal import Signal, token_divergence
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.roles import Role, role_key
from distill.rollouts.one_writer import make_rollout, make_slots
from distill.steps.table import StepTable, make_step_table
from distill.train.optimizer import OptimizerSettings, make_optimizer, make_schedule
from distill.train.packing import pack
from distill.train.sharding import batch_sharding, make_mesh, state_shardings
from distill.train.state import TrainState, create_state
from distill.train.update import make_train_step
from distill.trajectories import Source, Trajectories
from models.version import __version__

__all__ = [
    "LossSums",
    "OptimizerSettings",
    "Role",
    "Signal",
    "Source",
    "StepTable",
    "TrainState",
    "Trajectories",
    "__version__",
    "batch_sharding",
    "create_state",
    "divergence",
    "forward_kl",
    "jsd",
    "make_mesh",
    "make_optimizer",
    "make_rollout",
    "make_schedule",
    "make_slots",
    "make_step_table",
    "make_train_step",
    "pack",
    "reverse_kl",
    "role_key",
    "state_shardings",
    "token_divergence",
    "token_log_probs",
    "top_k_divergence",
    "top_k_entropy",
    "trajectory_loss",
]
