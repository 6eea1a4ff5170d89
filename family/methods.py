"""The family's methods by name: a plan, its settings, and what it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from distill.losses.signal import Signal
from family.hybrids import (
    GrpoPlanSettings,
    HdpoSettings,
    KdrlSettings,
    OpdSettings,
    SwitchSettings,
    grpo,
    hdpo,
    kdrl,
    opd,
    opd_on_wrong,
    switch,
)
from family.ratios import RladSettings, RlsdSettings, SdarSettings, rlad, rlsd, sdar
from family.scope import ScopeSettings, scope, scope_weights
from family.tokens import Plan, Tokens
from family.variants import (
    GOpdSettings,
    JsdOpdSettings,
    LightningSettings,
    PowerOpdSettings,
    VopdSettings,
    g_opd,
    jsd_opd,
    lightning,
    power_opd,
    vopd,
)
from family.weighting import (
    CurveSettings,
    EopdSettings,
    IwOpdSettings,
    TipSettings,
    curve,
    eopd,
    iw_opd,
    tip,
)

# Responses' weights of (settings, log_p [B], log_q [B], right [B], group_size).
RowWeights = Callable[[Any, jax.Array, jax.Array, jax.Array, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
    """A point of the family.

    Attributes:
      settings: the class of the plan's settings.
      plan: what is done with every token.
      rewarded: whether it reads rewards, so that responses come in groups and are graded.
      taught: whether it reads what a teacher says of the tokens.
      exposed: whether the teacher is the student itself, some updates old, and is shown the answer.
      entropies: of `student` and `teacher`, whose it reads.
      kl: whether it reads KL(p, q).
      reference: whether it reads what the student before training says of the tokens.
      row_weights: weights of responses, of all responses of a group.
    """

    settings: type
    plan: Callable[[Any, Tokens], Plan]
    rewarded: bool = False
    taught: bool = True
    exposed: bool = False
    entropies: tuple[str, ...] = ()
    kl: bool = False
    reference: bool = False
    row_weights: RowWeights | None = None

    def signal(self, settings: Any) -> Signal | None:
        """The divergence D that the plan weighs; None where it weighs none."""
        return getattr(settings, "signal", None)


METHODS: dict[str, Method] = {
    "plan_grpo": Method(GrpoPlanSettings, grpo, rewarded=True, taught=False),
    "plan_opd": Method(OpdSettings, opd),
    "kdrl": Method(KdrlSettings, kdrl, rewarded=True),
    "opd_on_wrong": Method(OpdSettings, opd_on_wrong, rewarded=True),
    "hdpo": Method(HdpoSettings, hdpo, rewarded=True),
    "switch": Method(SwitchSettings, switch, rewarded=True),
    "rlad": Method(RladSettings, rlad, rewarded=True),
    "rlsd": Method(RlsdSettings, rlsd, rewarded=True, exposed=True),
    "sdar": Method(SdarSettings, sdar, rewarded=True),
    "scope": Method(ScopeSettings, scope, rewarded=True, row_weights=scope_weights),
    "lightning": Method(LightningSettings, lightning),
    "vopd": Method(VopdSettings, vopd, kl=True),
    "jsd_opd": Method(JsdOpdSettings, jsd_opd),
    "power_opd": Method(PowerOpdSettings, power_opd),
    "g_opd": Method(GOpdSettings, g_opd, reference=True),
    "eopd": Method(EopdSettings, eopd, entropies=("teacher",)),
    "tip": Method(TipSettings, tip, entropies=("student",)),
    "iw_opd": Method(IwOpdSettings, iw_opd),
    "curve": Method(CurveSettings, curve, kl=True),
}
