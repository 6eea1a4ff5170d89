"""False-alarm down-weighting: the paper's analysis, which caps losses and guides nothing.

TOPD (arXiv 2606.00305): of the high-loss tokens, the 30 % with the lowest OT distance get the
median loss of their rollout; the control takes as many from the other end.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from topd.probe import Probe
from topd.settings import GuidanceSettings


class Caps(flax.struct.PyTreeNode):
    """What becomes of every token's loss: factor * loss + constant, factor and constant fixed.

    Attributes:
      factors_BxT: 1 where nothing is capped.
      constants_BxT: 0 where nothing is capped.
      capped_B: capped tokens of a row: those that were chosen and lay above their median.
    """

    factors_BxT: jax.Array
    constants_BxT: jax.Array
    capped_B: jax.Array


def cap_losses(probe: Probe, settings: GuidanceSettings, length: int) -> Caps:
    """Caps of a batch; the share is of all its candidates, ties by row and window.

    A loss at or below its median stays as it is.

    Args:
      length: T of the rollouts.
    """
    assert probe.divergence_BxW is not None and probe.median_B is not None
    p = jax.lax.stop_gradient(probe)
    divergence, median = jax.lax.stop_gradient((probe.divergence_BxW, probe.median_B[:, None]))
    valid = p.starts.valid_BxW
    distance = p.distance_BxW if settings.objective == "cap_low" else -p.distance_BxW
    order = jnp.argsort(jnp.where(valid, distance, jnp.inf).reshape(-1), stable=True)
    rank = jnp.argsort(order, stable=True).reshape(valid.shape)
    chosen = valid & (rank < jnp.round(settings.cap_share * jnp.sum(valid)))
    capped = chosen & (divergence > median)
    clip = settings.cap == "clip"
    factor = 0.0 if clip else median / jnp.where(capped, divergence, 1.0)
    constant = median if clip else 0.0
    rows, slots = jnp.arange(valid.shape[0])[:, None], jnp.where(capped, p.starts.at_BxW, length)
    plain = jnp.zeros((valid.shape[0], length))
    return Caps(
        factors_BxT=(plain + 1).at[rows, slots].set(factor, mode="drop"),
        constants_BxT=plain.at[rows, slots].set(constant, mode="drop"),
        capped_B=jnp.sum(capped, axis=1),
    )
