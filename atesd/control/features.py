"""What the policy sees of the training: the six scalars of its state s, and the group's place."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from atesd.control.moments import Moments, add, divide, init_moments, std
from atesd.settings import ControllerSettings

READINGS = ("exposure", "loss", "mismatch", "probe_nll", "confidence")


class Readings(flax.struct.PyTreeNode):
    """The five readings of every group, columns in the order of `READINGS`.

    Attributes:
      values_GxR: moving averages; of the confidence, the latest value. 0 before the first
        observation.
      seen_GxR: there was one.
      moments: of these values over the decisions so far, [G, R]. Each group has its own: what sets
        groups apart is said by their places already.
    """

    values_GxR: jax.Array
    seen_GxR: jax.Array
    moments: Moments


def num_features(settings: ControllerSettings) -> int:
    """Width F of the policy's state."""
    return 1 + len(READINGS) + (settings.groups > 1)


def init_readings(groups: int) -> Readings:
    """Before the first batch."""
    shape = (groups, len(READINGS))
    return Readings(jnp.zeros(shape), jnp.zeros(shape, bool), init_moments(*shape))


def read(readings: Readings, ema_decay: float, **observed_G: jax.Array) -> Readings:
    """Takes in observations [G], by the names in `READINGS`.

    The first one starts its average. One that is not finite leaves its average as it is.
    """
    values_GxR, seen_GxR = readings.values_GxR, readings.seen_GxR
    for name, x_G in observed_G.items():
        column = READINGS.index(name)
        decay = 0.0 if name == "confidence" else ema_decay
        old_G, seen_G, finite_G = values_GxR[:, column], seen_GxR[:, column], jnp.isfinite(x_G)
        new_G = jnp.where(seen_G, decay * old_G + (1 - decay) * x_G, x_G)
        values_GxR = values_GxR.at[:, column].set(jnp.where(finite_G, new_G, old_G))
        seen_GxR = seen_GxR.at[:, column].set(seen_G | finite_G)
    return readings.replace(values_GxR=values_GxR, seen_GxR=seen_GxR)


def build(readings: Readings, progress: jax.Array) -> tuple[Readings, jax.Array]:
    """The state of a new decision [G, F].

    Columns: `progress` in [0, 1]; the readings, less their mean and divided by their standard
    deviation over the decisions so far including this one, 0 where fewer than two decisions have
    seen one; with several groups, the group's place in [-1, 1].

    Returns:
      (the readings with their moments brought up to date, the features)
    """
    values_GxR = readings.values_GxR
    groups = values_GxR.shape[0]
    moments = add(readings.moments, values_GxR, readings.seen_GxR)
    standardized_GxR = divide(values_GxR - moments.mean, std(moments))
    columns = [
        jnp.full((groups, 1), progress, values_GxR.dtype),
        # An average that was never observed has no distance from the mean of the others.
        jnp.where(readings.seen_GxR, standardized_GxR, 0.0),
    ]
    if groups > 1:
        columns.append(jnp.linspace(-1, 1, groups, dtype=values_GxR.dtype)[:, None])
    return readings.replace(moments=moments), jnp.concatenate(columns, axis=1)
