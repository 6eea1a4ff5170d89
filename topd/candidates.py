"""Where windows open: positions of high, low or any loss, a fixed number per rollout.

Everything is a row's own: a candidate does not depend on the batch. B rows, T tokens, W windows.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.roles import Role, role_key
from models.decoding.sampling import row_keys

# Attempts of `Role.PROBE` for draws of positions. Those of windows start at 2.
_LOW, _ANY = 0, 1


class Starts(flax.struct.PyTreeNode):
    """First tokens of windows.

    Attributes:
      at_BxW: position t of the row; both models continue from what lies before it. 1 where there is
        no window.
      valid_BxW: whether there is a window.
    """

    at_BxW: jax.Array
    valid_BxW: jax.Array


def high_loss(losses_BxT: jax.Array, eligible_BxT: jax.Array, share: float, windows: int) -> Starts:
    """The share of a row's eligible positions with the highest loss, rounded, from 1 to `windows`.

    Of equal losses the first come first.

    Raises:
      ValueError: there are more windows than positions.
    """
    if windows > losses_BxT.shape[1]:
        raise ValueError(
            f"windows.per_rollout={windows} is more than the {losses_BxT.shape[1]} positions of a "
            "row. Lower it."
        )
    count_B = jnp.sum(eligible_BxT, axis=1)
    wanted_B = jnp.clip(jnp.round(share * count_B).astype(jnp.int32), 1, windows)
    wanted_B = jnp.minimum(wanted_B, count_B)
    # NaN would come first.
    losses = jnp.where(eligible_BxT & ~jnp.isnan(losses_BxT), losses_BxT, -jnp.inf)
    at_BxW = jax.lax.top_k(losses, windows)[1]
    valid = jnp.arange(windows) < wanted_B[:, None]
    return Starts(jnp.where(valid, at_BxW, 1), valid)


def low_loss(
    losses_BxT: jax.Array,
    eligible_BxT: jax.Array,
    quantile: float,
    sample_ids_B: jax.Array,
    key: jax.Array,
) -> Starts:
    """One position of every row, drawn from those with a loss of at most the row's quantile."""
    eligible = jnp.where(eligible_BxT, losses_BxT, jnp.nan)
    bound_B = jnp.nanquantile(eligible, quantile, axis=1)
    pool_BxT = eligible_BxT & (losses_BxT <= bound_B[:, None])
    return _draw(pool_BxT, sample_ids_B, role_key(key, Role.PROBE, _LOW))


def any_position(eligible_BxT: jax.Array, sample_ids_B: jax.Array, key: jax.Array) -> Starts:
    """One eligible position of every row, whatever its loss."""
    return _draw(eligible_BxT, sample_ids_B, role_key(key, Role.PROBE, _ANY))


def _draw(pool_BxT: jax.Array, sample_ids_B: jax.Array, key: jax.Array) -> Starts:
    width = pool_BxT.shape[1]
    noise = jax.vmap(lambda k: jax.random.gumbel(k, (width,)))(row_keys(key, sample_ids_B))
    at_B = jnp.argmax(jnp.where(pool_BxT, noise, -jnp.inf), axis=1)
    valid = jnp.any(pool_BxT, axis=1)
    return Starts(jnp.where(valid, at_B, 1)[:, None], valid[:, None])
