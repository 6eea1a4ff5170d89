"""Reward and teacher together: GRPO and OPD, their sum, and switches from one to the other.

KDRL is arXiv 2506.02208. `opd_on_wrong` is what is there called SRPO, `hdpo` and `switch` are HDPO
and OPD-then-RL, in the forms in which the paper on OPD-then-RL runs them. Notation: A^ is a
response's advantage within its group, c whether it is right, d = log q - log p.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from family.pull import Pull, check_pull, pull
from family.tokens import Plan, Tokens
from models.checks import at_least, check, one_of

NonNegative = Annotated[float, at_least(0)]


@dataclasses.dataclass(frozen=True)
class GrpoPlanSettings:
    """GRPO has nothing to set besides its surrogate."""


def grpo(settings: GrpoPlanSettings, t: Tokens) -> Plan:
    """A = A^, rho = r."""
    return Plan(advantage_BxT=t.advantage_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class OpdSettings:
    """On-policy distillation from the sampled token.

    Attributes:
      pull: the divergence that is descended.
    """

    pull: Pull = "reverse_kl"

    def __post_init__(self):
        check(self, "plan")
        check_pull("plan.pull", self.pull)


def opd(settings: OpdSettings, t: Tokens) -> Plan:
    """A = d (or u - 1), rho = r."""
    return Plan(advantage_BxT=pull(settings.pull, t.gap_BxT), log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class KdrlSettings:
    """KDRL: GRPO, and a pull towards the teacher that fades.

    Attributes:
      pull: the divergence that is descended.
      form: `loss` differentiates the pull beside the surrogate, with no ratio, as k2 does;
        `advantage` adds it to the reward's inside of the surrogate.
      beta: the pull's weight at the first update.
      beta_decay: what the weight loses at each update.
      beta_min: the weight falls no lower.
      gate: `none`; `response` pulls on wrong responses alone; `group` in groups alone of which no
        response is right.
    """

    pull: Pull = "reverse_kl"
    form: Annotated[str, one_of("loss", "advantage")] = "loss"
    beta: NonNegative = 5e-3
    beta_decay: NonNegative = 5e-5
    beta_min: NonNegative = 1e-3
    gate: Annotated[str, one_of("none", "response", "group")] = "none"

    def __post_init__(self):
        check(self, "plan")
        check_pull("plan.pull", self.pull)
        if self.beta_min > self.beta:
            raise ValueError(
                f"plan.beta_min={self.beta_min} is above plan.beta={self.beta}, from which the "
                "weight falls. Lower it."
            )


def kdrl(settings: KdrlSettings, t: Tokens) -> Plan:
    """A = A^ and a = beta d (`loss`), or A = A^ + beta d (`advantage`), where the gate is open.

    -beta d log p, with d detached, is beta k2 token by token (Eq. 4).
    """
    s = settings
    beta = jnp.maximum(s.beta - s.beta_decay * t.step, s.beta_min)
    solved = {"none": 0.0, "response": t.right_BxT, "group": t.group_right_BxT}[s.gate]
    teacher_BxT = beta * (1.0 - solved) * pull(s.pull, t.gap_BxT)
    if s.form == "advantage":
        both_BxT = t.advantage_BxT + teacher_BxT
        return Plan(advantage_BxT=both_BxT, log_ratio_BxT=t.log_ratio_BxT)
    return Plan(
        likelihood_BxT=teacher_BxT, advantage_BxT=t.advantage_BxT, log_ratio_BxT=t.log_ratio_BxT
    )


def opd_on_wrong(settings: OpdSettings, t: Tokens) -> Plan:
    """A = c A^ + (1 - c) d: right responses are rewarded, wrong ones taught."""
    gap_BxT = pull(settings.pull, t.gap_BxT)
    mixed_BxT = jnp.where(t.right_BxT > 0, t.advantage_BxT, gap_BxT)
    return Plan(advantage_BxT=mixed_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class HdpoSettings:
    """GRPO, and a pull towards the teacher where a whole group fails.

    Attributes:
      pull: the divergence that is descended.
      beta: the pull's weight.
    """

    pull: Pull = "reverse_kl"
    beta: NonNegative = 1.0

    def __post_init__(self):
        check(self, "plan")
        check_pull("plan.pull", self.pull)


def hdpo(settings: HdpoSettings, t: Tokens) -> Plan:
    """A = A^ + 1[no response of the group is right] beta d."""
    taught_BxT = settings.beta * pull(settings.pull, t.gap_BxT)
    failed_BxT = t.group_right_BxT == 0
    both_BxT = t.advantage_BxT + jnp.where(failed_BxT, taught_BxT, 0.0)
    return Plan(advantage_BxT=both_BxT, log_ratio_BxT=t.log_ratio_BxT)


@dataclasses.dataclass(frozen=True)
class SwitchSettings:
    """OPD, and GRPO after it.

    Attributes:
      pull: the divergence that is descended first.
      after: updates of OPD; then come GRPO's.
      mask_ends: whether OPD leaves out tokens that end a text: a teacher that goes on longer would
        take away the student's ends.
    """

    pull: Pull = "reverse_kl"
    after: Annotated[int, at_least(0)] = 60
    mask_ends: bool = True

    def __post_init__(self):
        check(self, "plan")
        check_pull("plan.pull", self.pull)


def switch(settings: SwitchSettings, t: Tokens) -> Plan:
    """A = d for the first updates, A^ from then on."""
    gap_BxT = pull(settings.pull, t.gap_BxT)
    if settings.mask_ends:
        gap_BxT = jnp.where(t.ends_BxT > 0, 0.0, gap_BxT)
    phase_BxT = jnp.where(t.step < settings.after, gap_BxT, t.advantage_BxT)
    return Plan(advantage_BxT=phase_BxT, log_ratio_BxT=t.log_ratio_BxT)
