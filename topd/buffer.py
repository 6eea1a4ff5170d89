"""The rule that tells a real divergence: a window's distance against those at low-loss positions.

TOPD (arXiv 2606.00305) compares with the upper quartile of the low-loss positions; ours keeps the
latest distances there in a ring.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


class Buffer(flax.struct.PyTreeNode):
    """The latest N values.

    Attributes:
      values_N: the first min(count, N) are meant.
      count: int32 [], values seen so far. The next one goes to slot `count % N`.
    """

    values_N: jax.Array
    count: jax.Array


def init_buffer(size: int) -> Buffer:
    """Before the first value."""
    return Buffer(jnp.zeros(size, jnp.float32), jnp.zeros((), jnp.int32))


def push(buffer: Buffer, values_M: jax.Array, valid_M: jax.Array) -> Buffer:
    """With the valid ones of M values added, in order; what is not finite is left out.

    Raises:
      ValueError: there are more of them than the buffer holds.
    """
    size, count = buffer.values_N.shape[0], values_M.shape[0]
    if count > size:
        raise ValueError(
            f"guidance.buffer={size} holds fewer values than one batch adds ({count}). Raise "
            "it, or lower windows.low_rows."
        )
    valid_M = valid_M & jnp.isfinite(values_M)
    order = jnp.cumsum(valid_M) - 1
    slots = jnp.where(valid_M, (buffer.count + order) % size, size)
    values = buffer.values_N.at[slots].set(jax.lax.stop_gradient(values_M), mode="drop")
    return Buffer(values, buffer.count + jnp.sum(valid_M, dtype=jnp.int32))


def held(buffer: Buffer) -> jax.Array:
    """The values [N] that are held; NaN where there is none yet."""
    return jnp.where(jnp.arange(buffer.values_N.shape[0]) < buffer.count, buffer.values_N, jnp.nan)


def threshold(buffer: Buffer, quantile: float, least: int) -> jax.Array:
    """The quantile [] of what is held, linear between values; infinite below `least` of them.

    Example:
      >>> import jax.numpy as jnp
      >>> buffer = push(init_buffer(8), jnp.array([0.1, 0.2, 0.9]), jnp.ones(3, bool))
      >>> print(f"{threshold(buffer, quantile=0.5, least=2):.2f}")
      0.20
    """
    count = jnp.minimum(buffer.count, buffer.values_N.shape[0])
    return jnp.where(count >= least, jnp.nanquantile(held(buffer), quantile), jnp.inf)
