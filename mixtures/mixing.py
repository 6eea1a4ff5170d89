"""GKD's data: some samples are the student's own, the others come from a data set."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from distill.roles import Role, role_key
from distill.trajectories import Trajectories
from models.decoding.sampling import row_keys


def on_policy_rows(
    on_policy_share: float | jax.Array, key: jax.Array, sample_ids_B: jax.Array
) -> jax.Array:
    """Samples [B] whose coin says the student, with probability `on_policy_share`.

    A coin belongs to (key, sample id), so it can be tossed before the rollout, and one sample's
    does not depend on the others in its batch.
    """
    keys = row_keys(role_key(key, Role.DATA_COIN, 0), sample_ids_B)
    return jax.vmap(jax.random.uniform)(keys) < on_policy_share


def mix(
    student: Trajectories,
    data: Trajectories,
    on_policy_share: float | jax.Array,
    key: jax.Array,
    sample_ids_B: jax.Array,
) -> Trajectories:
    """The student's rollout or the data row (GKD, 2306.13649, Algorithm 1).

    The coin is tossed per sample, the paper's per batch; the expected loss is the same.

    Args:
      student, data: rows of the same samples, [B, T] and [B, U].
      on_policy_share: lambda: 1 takes all from the student, 0 all from the data.
      key: the round's key; the coins' noise is their own.
      sample_ids_B: identities of the rows.

    Returns:
      Rows [B, max(T, U)], each with the weights it came with.
    """
    chosen = on_policy_rows(on_policy_share, key, sample_ids_B)[:, None]
    width = max(student.tokens_BxT.shape[1], data.tokens_BxT.shape[1])

    def pad(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))  # zero is padding in every field

    return jax.tree.map(lambda x, y: jnp.where(chosen, pad(x), pad(y)), student, data)
