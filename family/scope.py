"""SCOPE (arXiv 2604.10688): right responses are imitated, wrong ones taught, by perplexity.

Of the right responses of a group those count most that surprise the student, of the wrong ones
those that the teacher finds likely (Eqs. 4 and 5).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from family.tokens import Plan, Tokens
from models.checks import above, check, one_of


@dataclasses.dataclass(frozen=True)
class ScopeSettings:
    """SCOPE's weights.

    Attributes:
      tau: temperature of the weights, which are perplexities to the power 1 / tau; large ones make
        them equal.
      group_scale: the weights of a group's right responses, and those of its wrong ones, add up to
        1 (`sum1`, the paper's equations), or have mean 1 (`mean1`), so that a group of more
        responses trains no less.
    """

    tau: Annotated[float, above(0)] = 1.0
    group_scale: Annotated[str, one_of("sum1", "mean1")] = "mean1"

    def __post_init__(self):
        check(self, "plan")


def scope_weights(
    settings: ScopeSettings,
    log_p_B: jax.Array,
    log_q_B: jax.Array,
    right_B: jax.Array,
    group_size: int,
) -> jax.Array:
    """Weights of responses [B]: PPL_S^(1/tau) over right ones, PPL_T^(-1/tau) over wrong ones.

    Args:
      log_p_B, log_q_B: means over a response's tokens, in nats, by student and teacher; minus
        their perplexities' logarithms. A response without tokens has 0.
      right_B: whether the response is right; groups lie side by side.
    """
    right_NxG = right_B.reshape(-1, group_size) > 0
    power_NxG = jnp.where(
        right_NxG, -log_p_B.reshape(-1, group_size), log_q_B.reshape(-1, group_size)
    )
    power_NxG = power_NxG / settings.tau

    def shares(members_NxG: jax.Array) -> jax.Array:
        weights_NxG = jax.nn.softmax(power_NxG, axis=1, where=members_NxG)
        if settings.group_scale == "mean1":
            weights_NxG *= jnp.sum(members_NxG, axis=1, keepdims=True)
        return weights_NxG

    return jnp.where(right_NxG, shares(right_NxG), shares(~right_NxG)).reshape(-1)


def scope(settings: ScopeSettings, t: Tokens) -> Plan:
    """A = w_S on right responses, w_T d on wrong ones; rho = r, not clipped."""
    taught_BxT = t.row_weight_BxT * t.gap_BxT
    return Plan(
        advantage_BxT=jnp.where(t.right_BxT > 0, t.row_weight_BxT, taught_BxT),
        log_ratio_BxT=t.log_ratio_BxT,
        clips=False,
    )
