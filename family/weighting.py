"""Which tokens on-policy distillation minds most: entropy gates, shares, and curves.

EOPD, TIP and IW-OPD weigh the sampled token's advantage; CORD's weights (arXiv 2601.16547) are a
curve over positions and a bonus for the largest divergences, on the exact reverse KL.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from distill.losses.signal import Signal
from family.responses import rank, running, total
from family.tokens import Plan, Tokens
from models.checks import Count, at_least, between, check


@dataclasses.dataclass(frozen=True)
class EopdSettings:
    """EOPD: OPD, and a forward KL where the teacher is not sure.

    Attributes:
      threshold: the teacher's entropy above which it is not, in nats.
      top_k: of the teacher's likeliest tokens, over which the forward KL runs; all others are one.
      weight: of the forward KL.
    """

    threshold: Annotated[float, at_least(0)] = 0.8
    top_k: Count = 16
    weight: Annotated[float, at_least(0)] = 1.0

    def __post_init__(self):
        check(self, "plan")

    @property
    def signal(self) -> Signal:
        """D."""
        return Signal("forward_kl", support="top_k", top_k=self.top_k, top_k_of="teacher")


def eopd(settings: EopdSettings, t: Tokens) -> Plan:
    """A = d, and w = weight where H_T > threshold."""
    unsure_BxT = t.teacher_entropy_BxT > settings.threshold
    return Plan(
        divergence_BxT=jnp.where(unsure_BxT, settings.weight, 0.0),
        advantage_BxT=t.gap_BxT,
        log_ratio_BxT=t.log_ratio_BxT,
    )


@dataclasses.dataclass(frozen=True)
class TipSettings:
    """TIP: OPD where the student is least sure.

    Attributes:
      share: of a response's tokens that are kept, those of the largest entropy; rounded up.
    """

    share: Annotated[float, between(0, 1, "(]")] = 0.5

    def __post_init__(self):
        check(self, "plan")


def tip(settings: TipSettings, t: Tokens) -> Plan:
    """A = d on the kept tokens, over which the response's mean runs."""
    kept_BxT = jnp.ceil(settings.share * t.length_BxT)
    order_BxT = rank(t.student_entropy_BxT, t.counted_BxT, t.segment_ids_BxT)
    scale_BxT = t.length_BxT / jnp.maximum(kept_BxT, 1.0)
    return Plan(
        advantage_BxT=jnp.where(order_BxT < kept_BxT, scale_BxT * t.gap_BxT, 0.0),
        log_ratio_BxT=t.log_ratio_BxT,
    )


@dataclasses.dataclass(frozen=True)
class IwOpdSettings:
    """IW-OPD: OPD that minds early tokens more, by what of the gap is still to come.

    Attributes:
      bonus: of the first tokens; it falls to 0 as the response's |d| is used up.
    """

    bonus: Annotated[float, at_least(0)] = 0.5

    def __post_init__(self):
        check(self, "plan")


def iw_opd(settings: IwOpdSettings, t: Tokens) -> Plan:
    """A = (1 + bonus (1 - share of |d| up to the token)) d."""
    size_BxT = jnp.where(t.counted_BxT, jnp.abs(t.gap_BxT), 0.0)
    whole_BxT = total(size_BxT, t.segment_ids_BxT)
    so_far_BxT = running(size_BxT, t.segment_ids_BxT)
    share_BxT = so_far_BxT / jnp.where(whole_BxT > 0, whole_BxT, 1.0)
    weight_BxT = 1.0 + settings.bonus * (1.0 - share_BxT)
    return Plan(advantage_BxT=weight_BxT * t.gap_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class CurveSettings:
    """A weight for every token: linear over a response, and more for the largest divergences.

    CORD has top 20, bonus 2, and falls from 2 to 1; others report gains from weights that rise. The
    defaults weigh all tokens alike.

    Attributes:
      top: tokens of a response that get the bonus, those of the largest reverse KL.
      top_weight: their weight, on top of the curve's.
      first, last: the curve's weight of a response's first and last token.
    """

    top: Annotated[int, at_least(0, "none")] = 0
    top_weight: Annotated[float, at_least(0)] = 1.0
    first: Annotated[float, at_least(0)] = 1.0
    last: Annotated[float, at_least(0)] = 1.0

    def __post_init__(self):
        check(self, "plan")

    @property
    def signal(self) -> Signal:
        """D."""
        return Signal("reverse_kl")


def curve(settings: CurveSettings, t: Tokens) -> Plan:
    """w = (top_weight if among the largest KLs) (first + (last - first) position)."""
    s = settings
    order_BxT = rank(t.kl_BxT, t.counted_BxT, t.segment_ids_BxT)
    bonus_BxT = jnp.where(order_BxT < s.top, s.top_weight, 1.0)
    along_BxT = t.position_BxT / jnp.maximum(t.length_BxT - 1.0, 1.0)
    return Plan(divergence_BxT=bonus_BxT * (s.first + (s.last - s.first) * along_BxT))
