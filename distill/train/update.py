"""From a loss to a pure train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax

import models
from distill.train.state import TrainState
from models.parameters import Params, constrain_params
from models.sharding import constrain_rows

Metrics = dict[str, jax.Array]


class Sums(Protocol):
    """What a loss returns: a pytree of sums and counts, divided once. See `distill.losses.trajectory_loss.LossSums`."""

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


class PartSums(Sums, Protocol):
    """Sums of a part of a batch: those of two parts are added leaf by leaf."""

    @property
    def total(self) -> jax.Array:
        """The sum [] that is differentiated."""
        ...

    @property
    def count(self) -> jax.Array:
        """What it is divided by [], 1 at least; it depends on no parameter."""
        ...


def make_train_step(
    loss_fn: Callable[..., Sums],
    optimizer: optax.GradientTransformation,
    config: models.ModelConfig | None = None,
    micro_batches: int = 1,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds `train_step(state, *inputs) -> (state, metrics)`: one optimiser update.

    The function is pure: jit it with shardings of your own, and donate the state if you no longer
    need it.

    A batch that is no good changes nothing but `state.step`, which counts batches: where the loss, or
    the gradient's norm, is not finite (`skipped`), and where the gradient is zero everywhere, because
    no token trains or no group has a signal (`idle`), parameters and optimiser stay bit for bit as
    they were. Momentum, weight decay and the optimiser's schedule wait for the next good batch.

    Args:
      loss_fn: `loss_fn(params, *inputs)` returns sums and counts; the step differentiates their
        ratio, so that every token weighs the same in the whole global batch.
      optimizer: any optax transformation.
      config: the student's. On its mesh gradients are pinned to where their parameters lie.
      micro_batches: parts of the batch, the last of the inputs, whose leaves have rows first. They
        are run one after the other and their sums added up, then divided once: less memory, the same
        update up to rounding. A part are every so many-th rows. With several, `loss_fn` must return
        `PartSums`.

    Returns:
      The step. Its metrics are scalars: `loss`, the sums' own (of `LossSums`: `likelihood` and
      `divergence`, nats per token), `loss_tokens`, `grad_norm` (before clipping), `skipped` and
      `idle` (1 or 0).

    Raises:
      ValueError: fewer than one micro-batch; when the step is traced, rows that do not divide.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_pretrained
      >>> from distill.losses.trajectory_loss import trajectory_loss
      >>> from distill.train.state import create_state
      >>> from distill.trajectories import Trajectories
      >>> config, params = load_pretrained(model_directory("embedded:student"))
      >>> ones = jnp.ones((1, 4), jnp.int32)
      >>> trajectories = Trajectories(
      ...     tokens_BxT=5 * ones, source_BxT=2 * ones, likelihood_weights_BxT=1.0 * ones,
      ...     divergence_weights_BxT=0.0 * ones, positions_BxT=jnp.arange(4)[None], segment_ids_BxT=ones,
      ... )
      >>> optimizer = optax.sgd(1e-3)
      >>> step = jax.jit(make_train_step(lambda p, t: trajectory_loss(p, config, t), optimizer))
      >>> state, first = step(create_state(params, optimizer), trajectories)
      >>> state, second = step(state, trajectories)
      >>> bool(second["loss"] < first["loss"]), int(state.step)
      (True, 2)
    """
    if micro_batches < 1:
        raise ValueError(f"optimizer.micro_batches={micro_batches} must be at least 1.")

    def pinned(gradients: Params) -> Params:
        return gradients if config is None else constrain_params(gradients, config)

    def whole_batch(params: Params, *inputs: Any) -> tuple[Sums, Params]:
        def objective(params: Params) -> tuple[jax.Array, Sums]:
            sums = loss_fn(params, *inputs)
            return sums.mean, sums

        gradients, sums = jax.grad(objective, has_aux=True)(params)
        return sums, pinned(gradients)

    def in_parts(params: Params, *inputs: Any) -> tuple[Sums, Params]:
        *shared, batch = inputs
        parts = jax.tree.map(lambda x: _cut(x, micro_batches), batch)

        def objective(params: Params, part: Any) -> tuple[jax.Array, PartSums]:
            sums = cast(PartSums, loss_fn(params, *shared, part))
            return sums.total, sums

        def add(so_far: tuple[Any, Params], part: Any) -> tuple[tuple[Any, Params], None]:
            if config is not None:
                part = constrain_rows(part, config.mesh, config.rules, "micro-batch")
            gradients, sums = jax.grad(objective, has_aux=True)(params, part)
            added = jax.tree.map(jnp.add, so_far, (sums, pinned(gradients)))
            return (added[0], pinned(added[1])), None

        like = jax.eval_shape(
            jax.grad(objective, has_aux=True), params, jax.tree.map(lambda x: x[0], parts)
        )
        # Added up in float32, whatever the parameters are.
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, "float32")), like[0])  # fmt: skip
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like[1])
        (sums, gradients), _ = jax.lax.scan(add, (nothing, pinned(zeros)), parts)
        count = jnp.maximum(sums.count, 1.0)
        return sums, jax.tree.map(lambda g, p: (g / count).astype(p.dtype), gradients, params)

    differentiate = whole_batch if micro_batches == 1 else in_parts

    def train_step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        sums, grads = differentiate(state.params, *inputs)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(sums.mean) & jnp.isfinite(norm)
        idle = ~is_nonzero(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates), opt_state
        params, opt_state = where(finite & ~idle, new, (state.params, state.opt_state))
        metrics = {
            "loss": sums.mean,
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


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """Rows [B, ...] as [parts, B / parts, ...]; on a mesh none of them moves to another device."""
    if x.shape[0] % parts:
        raise ValueError(
            f"optimizer.micro_batches={parts} does not divide a batch of {x.shape[0]} rows."
        )
    return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
