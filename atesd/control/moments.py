"""Running mean and standard deviation (Welford's recurrence)."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


class Moments(flax.struct.PyTreeNode):
    """Of every entry of an array on its own.

    Attributes:
      count: int32, observations so far.
      mean: theirs.
      squares: sum of their squared distances from the mean.
    """

    count: jax.Array
    mean: jax.Array
    squares: jax.Array


def init_moments(*shape: int) -> Moments:
    """Before the first observation."""
    return Moments(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.zeros(shape))


def add(moments: Moments, x: jax.Array, valid: jax.Array | bool = True) -> Moments:
    """With x [...] observed, where it is valid [...]."""
    valid = jnp.broadcast_to(valid, x.shape)
    count = moments.count + valid
    x = jnp.where(valid, x, moments.mean)
    distance = x - moments.mean
    mean = moments.mean + distance / jnp.maximum(count, 1).astype(x.dtype)
    return Moments(count, mean, moments.squares + distance * (x - mean))


def std(moments: Moments) -> jax.Array:
    """Population standard deviation; 0 where there are fewer than two observations.

    What cannot be told from rounding counts as 0: dividing by it would turn a constant into noise.
    """
    std = jnp.sqrt(moments.squares / jnp.maximum(moments.count, 1).astype(moments.mean.dtype))
    rounding = 8 * jnp.finfo(std.dtype).eps * jnp.abs(moments.mean)
    return jnp.where(std > rounding, std, 0.0)


def divide(x: jax.Array, std: jax.Array) -> jax.Array:
    """x / std [...]; 0 where std is 0."""
    return jnp.where(std > 0, x / jnp.where(std > 0, std, 1.0), 0.0)
