"""Whose noise a key makes: the part of randomness by identity that every rollout shares."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp


class Role(enum.IntEnum):
    """Whose noise a key makes."""

    STUDENT = 0
    TEACHER = 1
    STEP_COIN = 2  # who writes a step
    DATA_COIN = 3  # whether a sample is the student's or the data set's
    PROBE = 4  # texts that are only looked at, and where they begin


def role_key(key: jax.Array, role: Role, attempt: int | jax.Array) -> jax.Array:
    """The key of one role's attempt; rows and positions are folded in later.

    A correction so never reuses the noise that drew the tokens it replaces.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> student, teacher = (role_key(key, r, attempt=0) for r in (Role.STUDENT, Role.TEACHER))
      >>> bool(jax.random.uniform(student) == jax.random.uniform(teacher))
      False
    """
    return jax.random.fold_in(jax.random.fold_in(key, int(role)), attempt)


def row_role_keys(
    keys_B: jax.Array, ids_B: jax.Array, role: Role, attempt: int | jax.Array
) -> jax.Array:
    """Keys [B] of one role's noise, from the rows' rounds and sample ids.

    Args:
      attempt: [], or of every row [B].
    """

    def row(key: jax.Array, sample_id: jax.Array, attempt: jax.Array) -> jax.Array:
        return jax.random.fold_in(role_key(key, role, attempt), sample_id)

    return jax.vmap(row)(keys_B, ids_B, jnp.broadcast_to(attempt, ids_B.shape))
