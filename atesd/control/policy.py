"""The Beta policy (Eq. 7) and the loss that trains it (Eq. 9)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from atesd.control import beta
from atesd.settings import ControllerSettings

# Above the rounding of a reward, far below the differences between rewards.
EPSILON = 1e-6


def init_policy(key: jax.Array, features: int, hidden: int) -> dict[str, Any]:
    """Parameters of f_phi: [F] -> tanh -> [2].

    The last layer is zero, so that every state starts at Beta(1 + ln 2, 1 + ln 2).
    """
    return {
        "hidden": {
            "kernel": jax.random.normal(key, (features, hidden)) / jnp.sqrt(features),
            "bias": jnp.zeros(hidden),
        },
        "output": {"kernel": jnp.zeros((hidden, 2)), "bias": jnp.zeros(2)},
    }


def shapes(params: dict[str, Any], features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(A, B) = 1 + softplus(f_phi(s)), Eq. 7, each [...], of states s, the features [..., F]."""
    hidden = jnp.tanh(features @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    output = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    both = 1 + jax.nn.softplus(output)
    return both[..., 0], both[..., 1]


def advantages(rewards_NxG: jax.Array) -> jax.Array:
    """(R - mean R) / (std R + eps) over the N decisions of each group, Eq. 9 (its B)."""
    centered = rewards_NxG - jnp.mean(rewards_NxG, axis=0)
    return centered / (jnp.std(rewards_NxG, axis=0) + EPSILON)


def policy_loss(
    params: dict[str, Any],
    features_NxGxF: jax.Array,
    exposures_NxG: jax.Array,
    rewards_NxG: jax.Array,
    entropy_weight: jax.Array | float,
    entropy_target: float,
) -> jax.Array:
    """Eq. 9: REINFORCE, and an entropy that is penalized above its target only.

    Both terms are means over the N x G decisions. The entropy's excess is squared decision by
    decision: squaring the mean's would let a sharp policy in one state pay for a flat one in
    another.

    Args:
      exposures_NxG: a as it was used, clipped.
      entropy_weight: c.
      entropy_target: in nats.
    """
    a, b = shapes(params, features_NxGxF)
    reinforce = -jnp.mean(advantages(rewards_NxG) * beta.log_prob(exposures_NxG, a, b))
    excess = jnp.maximum(0.0, beta.entropy(a, b) - entropy_target)
    return reinforce + entropy_weight * jnp.mean(excess**2)


def policy_optimizer(settings: ControllerSettings) -> optax.GradientTransformation:
    """Adam at a constant rate."""
    return optax.adam(settings.learning_rate)
