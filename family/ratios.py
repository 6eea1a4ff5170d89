"""The teacher scales the reward instead of being added to it: RLAD, RLSD; and SDAR beside it.

RLAD's TRRD is arXiv 2602.22495, Eq. 3; RLSD is arXiv 2604.03128, Algorithm 1; SDAR is arXiv
2605.15155. Where A^ is 0, RLAD and RLSD do nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp

from family.tokens import Plan, Tokens
from models.checks import Count, Share, above, at_least, check


@dataclasses.dataclass(frozen=True)
class RladSettings:
    """RLAD: a trust region around the student that wrote and the teacher at once.

    Attributes:
      alpha: share of the writer in the log-ratio; the teacher has the rest. 1 is GRPO. (The paper's
        section 4.1 has it the other way round, against its Eq. 3.)
      bound: log p - log q enters within plus and minus this, in nats.
    """

    alpha: Share = 0.5
    bound: Annotated[float, above(0)] = 1.0

    def __post_init__(self):
        check(self, "plan")


def rlad(settings: RladSettings, t: Tokens) -> Plan:
    """A = A^, log rho = alpha (log p - log b) + (1 - alpha) clamp(log p - log q)."""
    s = settings
    from_teacher_BxT = -t.gap_BxT
    clamped_BxT = jnp.clip(from_teacher_BxT, -s.bound, s.bound)
    return Plan(
        advantage_BxT=t.advantage_BxT,
        log_ratio_BxT=s.alpha * t.log_ratio_BxT + (1 - s.alpha) * clamped_BxT,
        limited_BxT=jnp.abs(from_teacher_BxT) > s.bound,
    )


@dataclasses.dataclass(frozen=True)
class RlsdSettings:
    """RLSD: a teacher that knows the answer says how much of the reward a token gets.

    Attributes:
      weight: lambda, the teacher's share of a token's credit, at the first update.
      over: updates over which that share falls to 0, linearly.
      bound: the evidence ratio lies within 1 minus and plus this.
    """

    weight: Share = 0.5
    over: Count = 50
    bound: Share = 0.2

    def __post_init__(self):
        check(self, "plan")


def rlsd(settings: RlsdSettings, t: Tokens) -> Plan:
    """A = A^ ((1 - lambda) + lambda clip(exp(sign(A^) d))), rho = r."""
    s = settings
    share = s.weight * jnp.maximum(1.0 - t.step / s.over, 0.0)
    # Bounded as a logarithm: the ratio itself may overflow.
    low, high = math.log1p(-s.bound) if s.bound < 1 else -math.inf, math.log1p(s.bound)
    evidence_BxT = jnp.sign(t.advantage_BxT) * t.gap_BxT
    bounded_BxT = jnp.exp(jnp.clip(evidence_BxT, low, high))
    return Plan(
        advantage_BxT=t.advantage_BxT * ((1 - share) + share * bounded_BxT),
        log_ratio_BxT=t.log_ratio_BxT,
        limited_BxT=(evidence_BxT < low) | (evidence_BxT > high),
    )


@dataclasses.dataclass(frozen=True)
class SdarSettings:
    """SDAR: GRPO, and a pull towards the teacher that cannot grow large.

    Attributes:
      weight: of the pull.
      sharpness: beta of sigma(beta d). For small ones the pull is beta / 4 of the reverse KL's, up
        to a baseline.
    """

    weight: Annotated[float, at_least(0)] = 0.1
    sharpness: Annotated[float, above(0)] = 5.0

    def __post_init__(self):
        check(self, "plan")


def sdar(settings: SdarSettings, t: Tokens) -> Plan:
    """A = A^, and beside the surrogate a = weight sigma(beta d)."""
    s = settings
    return Plan(
        likelihood_BxT=s.weight * jax.nn.sigmoid(s.sharpness * t.gap_BxT),
        advantage_BxT=t.advantage_BxT,
        log_ratio_BxT=t.log_ratio_BxT,
    )
