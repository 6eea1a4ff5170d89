"""MOTAB: monitor the student's rollout, backtrack to the last safe state, let the teacher correct.

arXiv 2605.19433.
"""

from distill import __version__
from motab.credit import find_backtrack
from motab.metrics import rollout_metrics
from motab.rollout import make_rollout, make_slots
from motab.rollout_state import Record
from motab.settings import MotabSettings
from motab.train import make_train_step

__all__ = [
    "MotabSettings",
    "Record",
    "__version__",
    "find_backtrack",
    "make_rollout",
    "make_slots",
    "make_train_step",
    "rollout_metrics",
]
