"""Which step broke the trajectory: breach, TD errors, root (MOTAB Eq. 7 and 8)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def find_backtrack(
    values_BxL: jax.Array, boundaries_BxL: jax.Array, num_steps_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The first unsafe step of every row, and the step to go back to.

    Step l is safe iff V_l >= gamma_l. The root of a breach at l is the step k <= l with the
    smallest TD error V_k - V_{k-1} among those whose predecessor was safe, the earliest of equals;
    a breach at the first step is its own root. The last safe state is everything before the root.

    Args:
      values_BxL: step values V in [0, 1].
      boundaries_BxL: boundaries gamma.
      num_steps_B: number of steps of each row; later columns are ignored.

    Returns:
      (breach_B, root_B): 0-based step indices, -1 where nothing breached.

    Example:
      >>> import jax.numpy as jnp
      >>> values = jnp.array([[0.9, 0.5, 0.45, 0.2], [0.9, 0.8, 0.9, 0.9]])
      >>> breach, root = find_backtrack(values, jnp.full((2, 4), 0.3), jnp.array([4, 4]))
      >>> breach.tolist(), root.tolist()
      ([3, -1], [1, -1])
    """
    steps = jnp.arange(values_BxL.shape[1])
    safe = values_BxL >= boundaries_BxL
    unsafe = ~safe & (steps < num_steps_B[:, None])
    breached = jnp.any(unsafe, axis=1)
    breach = jnp.argmax(unsafe, axis=1)
    td_errors = values_BxL[:, 1:] - values_BxL[:, :-1]
    candidate = safe[:, :-1] & (steps[1:] <= breach[:, None])
    td_errors = jnp.pad(
        jnp.where(candidate, td_errors, jnp.inf), ((0, 0), (1, 0)), constant_values=jnp.inf
    )
    root = jnp.argmin(td_errors, axis=1)
    none = jnp.full_like(breach, -1)
    return jnp.where(breached, breach, none), jnp.where(breached, root, none)
