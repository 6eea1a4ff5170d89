"""What policy gradients share: advantages within a group, and the clipped surrogate.

A response of a group of G to one prompt has the advantage A = (R - mean R) / std R (GRPO, arXiv
2402.03300, section 4.1.2), and its tokens the loss -min(r A, clip(r, 1 - low, 1 + high) A), where
r is a ratio of probabilities (PPO, arXiv 1707.06347, Eq. 7).
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from models.checks import one_of, require

Advantage = Annotated[str, one_of("std", "none")]


def group_advantages(
    rewards_B: jax.Array, group_size: int, scale: Advantage = "std", eps: float = 1e-6
) -> jax.Array:
    """Rewards [B] relative to those of their group, whose rows lie side by side.

    A group whose rewards are equal has advantage 0, exactly.

    Args:
      scale: `std` divides by the group's standard deviation (of the population: by G, not G - 1)
        plus `eps`; `none` leaves the differences.

    Raises:
      ValueError: an unknown scale, or rows that are no whole groups.

    Example:
      >>> import jax.numpy as jnp
      >>> group_advantages(jnp.array([1.0, 0.0, 0.0, 1.0]), group_size=4).round(3).tolist()
      [1.0, -1.0, -1.0, 1.0]
    """
    require("scale", scale, Advantage)
    if group_size < 1 or rewards_B.shape[0] % group_size:
        raise ValueError(f"{rewards_B.shape[0]} rewards are no whole groups of {group_size=}.")
    groups_NxG = jnp.asarray(rewards_B, jnp.float32).reshape(-1, group_size)
    # Rounding in the mean must not turn equal rewards into a signal.
    equal_Nx1 = jnp.all(groups_NxG == groups_NxG[:, :1], axis=1, keepdims=True)
    centered_NxG = groups_NxG - jnp.mean(groups_NxG, axis=1, keepdims=True)
    if scale == "std":
        centered_NxG /= jnp.std(groups_NxG, axis=1, keepdims=True) + eps
    return jnp.where(equal_Nx1, 0.0, centered_NxG).reshape(-1)


def clipped_surrogate(
    log_probs_BxT: jax.Array,
    old_log_probs_BxT: jax.Array,
    advantages: jax.Array,
    weights_BxT: jax.Array,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
    """What each token adds to the loss [B, T] before it is weighted, and whether it is clipped.

    A clipped token has no gradient; neither has one without a weight, whose log-probabilities may
    be anything.

    Args:
      log_probs_BxT, old_log_probs_BxT: of the token, in nats. The caller detaches the old ones.
      advantages: of the responses [B], or of the tokens [B, T].
    """
    # Clipping is decided on logarithms, and a clipped ratio never formed: it may overflow.
    log_ratio_BxT = jnp.where(weights_BxT != 0, log_probs_BxT - old_log_probs_BxT, 0.0)
    advantages_BxT = advantages if advantages.ndim == 2 else advantages[:, None]
    above_BxT = (advantages_BxT > 0) & (log_ratio_BxT > jnp.log1p(clip_high))
    below_BxT = (advantages_BxT < 0) & (log_ratio_BxT < jnp.log1p(-clip_low))
    clipped_BxT = above_BxT | below_BxT
    ratio_BxT = jnp.exp(jnp.where(clipped_BxT, 0.0, log_ratio_BxT))
    bound_BxT = jnp.where(above_BxT, 1 + clip_high, 1 - clip_low)
    return -advantages_BxT * jnp.where(clipped_BxT, bound_BxT, ratio_BxT), clipped_BxT
