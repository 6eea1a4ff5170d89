"""Sums, places and ranks within a response, however responses lie in rows.

A response is what has one segment id in a row, so that several may be packed into it. Every
function takes [B, T] and gives [B, T]: what is said of a response is said at each of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _by_row(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    return jax.vmap(function)(*arrays)


def total(values_BxT: jax.Array, segment_ids_BxT: jax.Array) -> jax.Array:
    """Sum over the response."""

    def of_row(values: jax.Array, ids: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, ids, num_segments=ids.shape[0] + 1)[ids]

    return _by_row(of_row, values_BxT, segment_ids_BxT)


def running(values_BxT: jax.Array, segment_ids_BxT: jax.Array) -> jax.Array:
    """Sum over the response up to the token, itself included."""

    def add(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]):
        (a, first), (b, second) = left, right
        return jnp.where(second, b, a + b), first | second

    def of_row(values: jax.Array, ids: jax.Array) -> jax.Array:
        starts = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
        return jax.lax.associative_scan(add, (values, starts))[0]

    return _by_row(of_row, values_BxT, segment_ids_BxT)


def place(counted_BxT: jax.Array, segment_ids_BxT: jax.Array) -> jax.Array:
    """Counted tokens of the response before this one, in float32."""
    ones = counted_BxT.astype(jnp.float32)
    return running(ones, segment_ids_BxT) - ones


def rank(values_BxT: jax.Array, counted_BxT: jax.Array, segment_ids_BxT: jax.Array) -> jax.Array:
    """Counted tokens of the response with a larger value, int32; of equal ones those before it.

    Tokens that do not count come after all others.
    """

    def of_row(values: jax.Array, counted: jax.Array, ids: jax.Array) -> jax.Array:
        order = jnp.lexsort((-values, ~counted, ids))
        at = jnp.arange(ids.shape[0])
        ordered = ids[order]
        first = jax.ops.segment_min(at, ordered, num_segments=ids.shape[0] + 1)[ordered]
        return jnp.zeros_like(at).at[order].set(at - first)

    return _by_row(of_row, values_BxT, counted_BxT, segment_ids_BxT)
