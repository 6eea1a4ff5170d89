"""From a loss to a pure train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax

import models
from distill.arguments import arguments_of
from distill.train.state import TrainState, holds_adapters, trained, with_trained
from models.parameters import Params, shardings
from models.sharding import constrain_rows

Metrics = dict[str, jax.Array]


class Sums(Protocol):
    """A loss as a pytree of sums and counts, divided once: `LossSums` of `trajectory_loss`, say."""

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
    """Sums of a part of a batch."""

    @property
    def total(self) -> jax.Array:
        """The sum [] that is differentiated."""
        ...

    @property
    def count(self) -> jax.Array:
        """What the parts' totals are divided by [], added up, and 1 at least; no parameter enters.

        0 where a total is a part's share of the whole batch's loss already.
        """
        ...


def add_up(sums: Any) -> Any:
    """The batch's sums, of those of its parts [parts, ...], leaf by leaf."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def rows_of_parts(values: jax.Array) -> jax.Array:
    """A batch's rows [B, ...] in their order, of its parts' `values` [parts, B / parts, ...]."""
    return jnp.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])


def parts_of_rows(rows: jax.Array, parts: int) -> jax.Array:
    """`rows` [B, ...] as [parts, B / parts, ...]; on a mesh none of them moves to another device.

    A part are every so many-th rows.

    Raises:
      ValueError: the rows do not divide.
    """
    if rows.shape[0] % parts:
        raise ValueError(
            f"optimizer.micro_batches={parts} does not divide a batch of {rows.shape[0]} rows."
        )
    return jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1)


def make_gradient(
    loss_fn: Callable[..., Sums],
    config: models.ModelConfig | None = None,
    micro_batches: int = 1,
    join: Callable[[Any], Any] = add_up,
) -> Callable[..., tuple[Any, Any]]:
    """Builds `gradient(params, *inputs) -> (sums, gradients)`, the gradients those of what trains.

    The arguments are those of `make_train_step`. Where `params` hold adapters, gradients are a tree
    as `distill.train.state.trained` gives it, and the base is not differentiated.
    """
    if micro_batches < 1:
        raise ValueError(f"optimizer.micro_batches={micro_batches} must be at least 1.")

    def pinned(gradients: Any) -> Any:
        if config is None or config.mesh is None:
            return gradients
        return jax.lax.with_sharding_constraint(gradients, trained(shardings(config, config.mesh)))

    def whole_batch(params: Params, *inputs: Any) -> tuple[Any, Any]:
        def objective(part: Any) -> tuple[jax.Array, Any]:
            sums = loss_fn(with_trained(part, params), *inputs)
            return sums.mean, sums

        gradients, sums = jax.grad(objective, has_aux=True)(trained(params))
        return sums, pinned(gradients)

    def in_parts(params: Params, *inputs: Any) -> tuple[Any, Any]:
        *shared, batch = inputs
        pieces = jax.tree.map(lambda x: parts_of_rows(x, micro_batches), batch)
        trains = trained(params)

        def objective(part: Any, piece: Any) -> tuple[jax.Array, Any]:
            sums = cast(PartSums, loss_fn(with_trained(part, params), *shared, piece))
            return sums.total, sums

        def add(so_far: Any, piece: Any) -> tuple[Any, Any]:
            if config is not None:
                piece = constrain_rows(piece, config.mesh, config.rules, "micro-batch")
            gradients, sums = jax.grad(objective, has_aux=True)(trains, piece)
            return pinned(jax.tree.map(jnp.add, so_far, pinned(gradients))), sums

        # Added up in float32, whatever the parameters are.
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, "float32")), trains
        )
        gradients, sums = jax.lax.scan(add, pinned(zeros), pieces)
        count = jnp.maximum(jnp.sum(sums.count), 1.0)
        gradients = jax.tree.map(lambda g, p: (g / count).astype(p.dtype), gradients, trains)
        return join(sums), gradients

    differentiate = whole_batch if micro_batches == 1 else in_parts

    def gradient(params: Params, *inputs: Any) -> tuple[Any, Any]:
        if config is not None and holds_adapters(params) != (config.lora is not None):
            raise ValueError(
                "The parameters hold adapters, but config.lora is None, so that nothing would read "
                "them. Give the config that they were added with, or models.merge them first."
                if config.lora is None
                else "config.lora is set, but the parameters hold no adapters: models.add_adapters."
            )
        return differentiate(params, *inputs)

    return gradient


def make_update(
    loss_fn: Callable[..., Sums],
    optimizer: optax.GradientTransformation,
    config: models.ModelConfig | None = None,
    micro_batches: int = 1,
    join: Callable[[Any], Any] = add_up,
) -> Callable[..., tuple[TrainState, Any, Metrics]]:
    """As `make_train_step`, for a method that reads the sums: `(state, sums, metrics)`."""
    gradient = make_gradient(loss_fn, config, micro_batches, join)

    def update(state: TrainState, *inputs: Any) -> tuple[TrainState, Any, Metrics]:
        sums, grads = gradient(state.params, *inputs)
        before = trained(state.params)
        _check_state(optimizer, before, state)
        norm = optax.tree.norm(grads)
        idle = ~is_nonzero(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, before)
        params = optax.apply_updates(before, updates)
        sound = ~spoils(params) & ~spoils(opt_state, state.opt_state)
        finite = jnp.isfinite(sums.mean) & jnp.isfinite(norm) & (idle | sound)
        params, opt_state = where(finite & ~idle, (params, opt_state), (before, state.opt_state))
        metrics = {
            "loss": sums.mean,
            **sums.metrics,
            "loss_tokens": sums.tokens,
            "grad_norm": norm,
            "skipped": (~finite).astype(jnp.int32),
            "idle": idle.astype(jnp.int32),
        }
        params = with_trained(params, state.params)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
        return new, sums, metrics

    return update


@arguments_of(make_update)
def make_train_step(*args: Any, **kwargs: Any) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds `train_step(state, *inputs) -> (state, metrics)`: one optimizer update.

    The function is pure: jit it with shardings of your own, and donate the state if you no longer
    need it.

    Where the parameters hold adapters (`models.add_adapters`) they alone train, whatever the
    optimizer is: the base has no gradient, counts in no norm, does not decay, and stays bit for
    bit as it was.

    A batch that is no good changes nothing but `state.step`, which counts batches: where the loss,
    the gradient's norm, or anything that the update would leave in the parameters or in the
    optimizer's state, is not finite (`skipped`), and where the gradient is zero everywhere, because
    no token trains or no group has a signal (`idle`), parameters and optimizer stay bit for bit as
    they were. Momentum, weight decay and the optimizer's schedule wait for the next good batch.

    Args:
      loss_fn: `loss_fn(params, *inputs)` returns sums and counts; the step differentiates their
        ratio, so that every token weighs the same in the whole global batch.
      optimizer: any optax transformation.
      config: the student's. On its mesh gradients are pinned to where their parameters lie.
      micro_batches: parts of the batch, the last of the inputs, whose leaves have rows first. They
        are run one after the other and their sums added up, then divided once: less memory, the
        same update up to rounding. A part are every so many-th rows. With several, `loss_fn` must
        return `PartSums`.
      join: the batch's sums of those of its parts, whose arrays it is given stacked [parts, ...].

    Returns:
      The step. Its metrics are scalars: `loss`, the sums' own (of `LossSums`: `likelihood` and
      `divergence`, nats per token), `loss_tokens`, `grad_norm` (before clipping, of what trains),
      `skipped` and `idle` (1 or 0).

    Raises:
      ValueError: fewer than one micro-batch; when the step is traced, rows that do not divide, a
        config whose `lora` is not what the parameters hold, or an optimizer's state that is not
        that of `distill.train.state.create_state`.

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
      ...     divergence_weights_BxT=0.0 * ones, positions_BxT=jnp.arange(4)[None],
      ...     segment_ids_BxT=ones,
      ... )
      >>> optimizer = optax.sgd(1e-3)
      >>> step = jax.jit(make_train_step(lambda p, t: trajectory_loss(p, config, t), optimizer))
      >>> state, first = step(create_state(params, optimizer), trajectories)
      >>> state, second = step(state, trajectories)
      >>> bool(second["loss"] < first["loss"]), int(state.step)
      (True, 2)
    """
    update = make_update(*args, **kwargs)

    def train_step(state: TrainState, *inputs: Any) -> tuple[TrainState, Metrics]:
        state, _, metrics = update(state, *inputs)
        return state, metrics

    return train_step


def _check_state(optimizer: optax.GradientTransformation, part: Any, state: TrainState) -> None:
    """Refuses a state that an optimizer made of all parameters where a part of them trains."""
    if part is state.params:
        return
    wanted: Any = jax.tree.structure(jax.eval_shape(optimizer.init, part))
    if wanted != jax.tree.structure(state.opt_state):
        raise ValueError(
            "state.opt_state is not this optimizer's for the adapters alone, which train. Make the "
            "state with distill.train.state.create_state(params, optimizer)."
        )


def where(condition: jax.Array, new: Any, old: Any) -> Any:
    """`new`, a pytree of arrays, where `condition` [] holds, else `old`, bit for bit."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def is_nonzero(tree: Any) -> jax.Array:
    """Whether any entry of any array is not 0 []; NaN is not."""
    found = [jnp.any(x != 0) for x in jax.tree.leaves(tree)]
    return jnp.any(jnp.stack(found)) if found else jnp.zeros((), bool)


def spoils(new: Any, old: Any = None) -> jax.Array:
    """Whether some number of a tree of arrays is not finite [], and was in `old`, if it is given.

    An optimizer may keep an infinity on purpose, such as the best loss so far.
    """

    def spoilt(x: Any, *before: Any) -> jax.Array:
        if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            return jnp.zeros((), bool)
        bad = ~jnp.isfinite(x)
        return jnp.any(bad & jnp.isfinite(before[0]) if before else bad)

    found = jax.tree.leaves(jax.tree.map(spoilt, new, *(() if old is None else (old,))))
    return jnp.any(jnp.stack(found)) if found else jnp.zeros((), bool)
