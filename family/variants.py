"""Variants of on-policy distillation from the sampled token: other advantages than d.

Each has the gradient of a divergence, which its docstring names. Lightning OPD (arXiv 2604.13010)
has OPD's advantage, bounded, on text and teacher scores that were kept.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from distill.losses.estimators import advantage
from family.tokens import Plan, Tokens
from models.checks import above, at_least, between, check


@dataclasses.dataclass(frozen=True)
class VopdSettings:
    """vOPD: d less its mean at the position.

    Attributes:
      baseline: share of the position's divergence that is added; 0 is OPD.
    """

    baseline: Annotated[float, at_least(0)] = 1.0

    def __post_init__(self):
        check(self, "plan")


def vopd(settings: VopdSettings, t: Tokens) -> Plan:
    """A = d + KL(p, q): the same gradient in expectation, with less noise as a rule."""
    centred_BxT = t.gap_BxT + settings.baseline * t.kl_BxT
    return Plan(advantage_BxT=centred_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class JsdOpdSettings:
    """JSD-OPD: the Jensen-Shannon divergence from the sampled token.

    Attributes:
      beta: of GKD's JSD; near 0 it is like the forward KL, near 1 like the reverse one, each times
        beta (1 - beta).
    """

    beta: Annotated[float, between(0, 1, "()")] = 0.5

    def __post_init__(self):
        check(self, "plan")


def jsd_opd(settings: JsdOpdSettings, t: Tokens) -> Plan:
    """A = (1 - beta) log(1 - beta + beta u)."""
    pull_BxT = advantage("jsd", t.gap_BxT, settings.beta)
    return Plan(advantage_BxT=pull_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class PowerOpdSettings:
    """PowerOPD: a difference of powers of probabilities, within plus and minus 1.

    It descends `power` times the density power divergence (Basu and others, 1998), the sum over
    tokens of p^(1 + a) / (a (1 + a)) - p q^a / a + q^(1 + a) / (1 + a).

    Attributes:
      power: of both probabilities; as it falls to 0, A / power tends to d.
    """

    power: Annotated[float, above(0)] = 0.5

    def __post_init__(self):
        check(self, "plan")


def power_opd(settings: PowerOpdSettings, t: Tokens) -> Plan:
    """A = q^power - p^power."""
    teacher_BxT = jnp.exp(settings.power * t.log_q_BxT)
    student_BxT = jnp.exp(settings.power * t.log_p_BxT)
    return Plan(advantage_BxT=teacher_BxT - student_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class GOpdSettings:
    """G-OPD: OPD beyond the teacher, away from where the student began.

    Attributes:
      extrapolation: lambda; 1 is OPD, and above 1 the target is q (q / ref)^(lambda - 1).
    """

    extrapolation: Annotated[float, at_least(0)] = 1.25

    def __post_init__(self):
        check(self, "plan")


def g_opd(settings: GOpdSettings, t: Tokens) -> Plan:
    """A = d + (lambda - 1) (log q - log ref)."""
    beyond_BxT = (settings.extrapolation - 1.0) * (t.log_q_BxT - t.log_ref_BxT)
    return Plan(advantage_BxT=t.gap_BxT + beyond_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class LightningSettings:
    """Lightning OPD: kept rollouts, and one number of the teacher's for each token.

    Attributes:
      advantage_clip: d lies within plus and minus this, in nats; 0 for no bound, as in the released
        code.
    """

    advantage_clip: Annotated[float, at_least(0, "off")] = 10.0

    def __post_init__(self):
        check(self, "plan")


def lightning(settings: LightningSettings, t: Tokens) -> Plan:
    """A = clip(log q_kept - log p), rho = 1: no importance ratio, however old the text is."""
    bound = settings.advantage_clip or jnp.inf
    return Plan(
        advantage_BxT=jnp.clip(t.gap_BxT, -bound, bound),
        log_ratio_BxT=t.fresh_BxT,
        limited_BxT=jnp.abs(t.gap_BxT) > bound,
    )
