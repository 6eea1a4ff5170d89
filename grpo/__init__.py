"""GRPO: a clipped surrogate of group advantages (arXiv 2402.03300)."""

from distill import __version__
from distill.losses.surrogate import clipped_surrogate, group_advantages
from grpo.policy_gradient import GrpoSettings, SurrogateSums, policy_gradient_loss

__all__ = [
    "GrpoSettings",
    "SurrogateSums",
    "__version__",
    "clipped_surrogate",
    "group_advantages",
    "policy_gradient_loss",
]
