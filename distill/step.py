"""From a loss to a pure train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
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

    Args:
      loss_fn: `loss_fn(params, *inputs)` returns sums and counts; the step differentiates their
        ratio, so that every token weighs the same in the whole global batch.
      optimizer: any optax transformation.

    Returns:
      The step. Its metrics are scalars: `loss`, the sums' own (of `LossSums`: `likelihood` and
      `divergence`, nats per token), `loss_tokens`, `grad_norm` (before clipping).
    """

    def train_step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        def objective(params: Params) -> tuple[jax.Array, Sums]:
            sums = loss_fn(params, *inputs)
            return sums.mean, sums

        (loss, sums), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            **sums.metrics,
            "loss_tokens": sums.tokens,
            "grad_norm": optax.tree.norm(grads),
        }
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
        )
        return new_state, metrics

    return train_step
