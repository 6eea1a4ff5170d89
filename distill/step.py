"""From a loss to a pure train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from distill.loss import LossSums
from distill.state import TrainState
from models.parameters import Params

Metrics = dict[str, jax.Array]


def make_train_step(
    loss_fn: Callable[..., LossSums], optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds `train_step(state, *inputs) -> (state, metrics)`: one optimiser update.

    The function is pure and places nothing: jit it with shardings of your own, and donate the state
    if you no longer need it.

    Args:
      loss_fn: `loss_fn(params, *inputs)` returns sums and counts; the step differentiates their
        ratio, so that every token weighs the same in the whole global batch.
      optimizer: any optax transformation.

    Returns:
      The step. Its metrics are scalars: `loss`, `likelihood`, `divergence` (nats per token),
      `loss_tokens`, `grad_norm` (before clipping).
    """

    def train_step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        def objective(params: Params) -> tuple[jax.Array, LossSums]:
            sums = loss_fn(params, *inputs)
            return sums.mean, sums

        (loss, sums), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            "likelihood": sums.likelihood / jax.numpy.maximum(sums.likelihood_tokens, 1.0),
            "divergence": sums.divergence / jax.numpy.maximum(sums.divergence_tokens, 1.0),
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
