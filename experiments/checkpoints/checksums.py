"""Checksums of arrays, taken on the devices: of the bits, whatever the sharding."""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

# Odd, and different for every axis, so that an entry's place tells in its factor.
_ODD = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D)
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}

Sums = dict[str, list[int]]


def checksums(tree: Any) -> Sums:
    """Two 32-bit sums for every array of a pytree, by the dotted path that leads to it.

    Entries are taken as unsigned integers, times a factor that depends on their place; as it is
    odd, a single flipped bit always tells, and other damage goes unseen once in 2^64.
    """
    # A program runs on one set of devices; a state may have arrays on all, and some on one.
    by_place: dict[Any, dict[str, Any]] = collections.defaultdict(dict)
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        by_place[_whole(x)][name] = x
    found = jax.device_get([_summing(place)(arrays) for place, arrays in by_place.items()])
    return {name: [int(x) for x in both] for sums in found for name, both in sums.items()}


def _whole(x: Any) -> Any:
    """Where every process has the whole of what is computed of an array; None by default."""
    sharding = getattr(x, "sharding", None)
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding if isinstance(sharding, SingleDeviceSharding) else None


@functools.cache
def _summing(place: Any) -> Any:
    return jax.jit(lambda arrays: jax.tree.map(_both, arrays), out_shardings=place)


def _both(x: jax.Array) -> jax.Array:
    bits = x if x.dtype == bool else jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
    bits = bits.astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        here = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place += here * jnp.uint32(_ODD[axis % len(_ODD)])
    place ^= place >> 15
    place *= jnp.uint32(0x2C1B3C6D)
    place ^= place >> 12
    factors = place | 1, (place * jnp.uint32(0x297A2D39) ^ place >> 15) | 1
    return jnp.stack([jnp.sum(bits * factor, dtype=jnp.uint32) for factor in factors])
