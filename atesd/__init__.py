"""ATESD: a controller decides how much of the reference the teacher sees (arXiv 2605.11458)."""

import distill  # first, for it sees to it that `models` is ours
from atesd.control import beta
from atesd.control.controller import ControllerState, decide, init_controller, observe
from atesd.exposure import References, ReferenceWidths, expose, pack_references
from atesd.loss import LossSettings, exposed_scores
from atesd.references import Reference, split_reference, tokenize_reference
from atesd.settings import ControllerSettings
from atesd.train import ExposedBatch, TeacherSettings, init_method_state, make_train_step

__version__ = distill.__version__

__all__ = [
    "ControllerSettings",
    "ControllerState",
    "ExposedBatch",
    "LossSettings",
    "Reference",
    "ReferenceWidths",
    "References",
    "TeacherSettings",
    "__version__",
    "beta",
    "decide",
    "expose",
    "exposed_scores",
    "init_controller",
    "init_method_state",
    "make_train_step",
    "observe",
    "pack_references",
    "split_reference",
    "tokenize_reference",
]
