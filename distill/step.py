"""From a loss to a pure train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from distill.state import TrainState
from models.parameters import Params

Metrics = dict[str, jax.Array]


class Sums(Protocol):
    """What a loss returns: a pytree of sums and counts, divided once. See `distill.loss.LossSums`."""

    @property
    def mean(self) -> jax.Array:
        """The loss []."""
        ...

    @property
    def tokens(self) -> jax.Array:
        """Weight [] of all tokens that train."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The loss's parts, and what else is worth logging; scalars by name."""
        ...


def make_train_step(
    loss_fn: Callable[..., Sums], optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds `train_step(state, *inputs) -> (state, metrics)`: one optimiser update.

    The function is pure and places nothing: jit it with shardings of your own, and donate the state
    if you no longer need it.

    A batch that is no good changes nothing but `state.step`, which counts batches: where the loss, or
    the gradient's norm, is not finite (`skipped`), and where the gradient is zero everywhere, because
    no token trains or no group has a signal (`idle`), parameters and optimiser stay bit for bit as
    they were. Momentum, weight decay and the optimiser's schedule wait for the next good batch.

    Args:
      loss_fn: `loss_fn(params, *inputs)` returns sums and counts; the step differentiates their
        ratio, so that every token weighs the same in the whole global batch.
      optimizer: any optax transformation.

    Returns:
      The step. Its metrics are scalars: `loss`, the sums' own (of `LossSums`: `likelihood` and
      `divergence`, nats per token), `loss_tokens`, `grad_norm` (before clipping), `skipped` and
      `idle` (1 or 0).
    """

    def train_step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        def objective(params: Params) -> tuple[jax.Array, Sums]:
            sums = loss_fn(params, *inputs)
            return sums.mean, sums

        (loss, sums), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        idle = ~is_nonzero(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates), opt_state
        params, opt_state = where(finite & ~idle, new, (state.params, state.opt_state))
        metrics = {
            "loss": loss,
            **sums.metrics,
            "loss_tokens": sums.tokens,
            "grad_norm": norm,
            "skipped": (~finite).astype(jnp.int32),
            "idle": idle.astype(jnp.int32),
        }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def where(condition: jax.Array, new: Any, old: Any) -> Any:
    """`new`, a pytree of arrays, where `condition` [] holds, else `old`, bit for bit."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def is_nonzero(tree: Any) -> jax.Array:
    """Whether any entry of any array is not 0 []; NaN is not."""
    found = [jnp.any(x != 0) for x in jax.tree.leaves(tree)]
    return jnp.any(jnp.stack(found)) if found else jnp.zeros((), bool)
