"""TOPD: on-policy distillation guided by near futures (arXiv 2606.00305)."""

from distill import __version__
from topd.candidates import Starts
from topd.loss import GuidedSums, guided_loss
from topd.probe import Probe, make_probe
from topd.settings import GuidanceSettings, TransportSettings, WindowSettings
from topd.targets import Targets, make_targets
from topd.train import NearFuture, ProbedBatch, init_method_state, make_train_step
from topd.transport import Transport

__all__ = [
    "GuidanceSettings",
    "GuidedSums",
    "NearFuture",
    "Probe",
    "ProbedBatch",
    "Starts",
    "Targets",
    "Transport",
    "TransportSettings",
    "WindowSettings",
    "__version__",
    "guided_loss",
    "init_method_state",
    "make_probe",
    "make_targets",
    "make_train_step",
]
