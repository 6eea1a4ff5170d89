"""Who writes a step, and whose step stands: the two step-level mixtures of student and teacher."""

from __future__ import annotations

from typing import Annotated

import flax.struct
import jax
import jax.numpy as jnp

from models.checks import Share, at_least, require


class ImitKD(flax.struct.PyTreeNode):
    """The teacher writes a step with probability p, else the student; every step stands.

    ImitKD (2009.07253) at the level of steps. The coin belongs to (key, row id, step).

    Attributes:
      p: the teacher's share of the steps, in [0, 1]; a number, or traced.
    """

    p: float | jax.Array

    def teacher_opens(self, coin_keys_B: jax.Array, steps_BxC: jax.Array) -> jax.Array:
        """Whether the teacher is the one to begin a step [B, C]."""

        def toss(key: jax.Array, step: jax.Array) -> jax.Array:
            return jax.random.uniform(jax.random.fold_in(key, step)) < self.p

        return jax.vmap(jax.vmap(toss, in_axes=(None, 0)))(coin_keys_B, steps_BxC)


class SKD(flax.struct.PyTreeNode):
    """The student writes a step; the teacher rewrites it unless pbar_T > beta pbar_S.

    SKD (2410.11325) at the level of steps, as in MOTAB's baselines: pbar is the geometric mean of
    the probabilities, at temperature 1, of the step's tokens but for the delimiter's.

    Attributes:
      beta: 0 accepts every step; a number, or traced.
    """

    beta: float | jax.Array

    def teacher_opens(self, coin_keys_B: jax.Array, steps_BxC: jax.Array) -> jax.Array:
        """Whether the teacher is the one to begin a step [B, C]: never."""
        return jnp.zeros(steps_BxC.shape, bool)

    def accepts(self, cost: jax.Array) -> jax.Array:
        """Whether a step stands.

        Args:
          cost: log pbar_S - log pbar_T of the steps, in nats.
        """
        return -cost > jnp.log(self.beta)  # in logs, so that beta = 0 takes the least likely, too


Policy = ImitKD | SKD
_Beta = Annotated[float, at_least(0)]


def check_policy(policy: Policy) -> None:
    """Raises a ValueError if p or beta, where it is a plain number, is out of range."""
    if isinstance(policy, ImitKD) and isinstance(policy.p, int | float):
        require("p", policy.p, Share)
    if isinstance(policy, SKD) and isinstance(policy.beta, int | float):
        require("beta", policy.beta, _Beta)
