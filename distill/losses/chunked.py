"""Losses and statistics of logits that never exist for all tokens at once: no array [B, T, V].

Hidden states [B, T, D] go through their heads in blocks of positions [B, t, D], and a function of
the block's logits z = h W^T says what each token adds. Its weighted sum is differentiated,

  L = sum over b, t of w_bt value(z_bt),

in the forward pass: where a block's logits are at hand, G = dL/dz is formed and used up, as dL/dh =
G W, which is kept [B, T, D], and as a term of dL/dW = sum of G^T h, one array [V, D] in float32 (on
every device along the batch, of its own rows). The backward pass only multiplies by the gradient of
L, a scalar; forming the logits a second time instead took 1.9 x the time and 2.6 x the memory. That
is why there is one differentiable scalar: a second would need a [V, D] of its own. What else is
said of the tokens has no gradient.

Memory: the gradients themselves, one product G^T h, and some arrays of a block. With V =
151,936 and D = 1024, 8192 tokens and the reverse KL to a teacher of the same size, XLA on CPU plans
0.8 GB of temporaries in float32 and 1.7 GB in bfloat16; the logits at once take 14.9 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.trajectories import Trajectories
from models.attention import platform
from models.parameters import Params
from models.sharding import LogicalAxes, batch_multiple, constrain

# A block's logits are at most this many numbers, per model and device, but at least one position of
# every row. On CPU twice as many take a tenth more time. An accelerator has the memory for more,
# and would wait for the sum [V, D], which every block reads and writes.
_BLOCK_ELEMENTS = 2**23
_ACCELERATOR = 16

# Rows of fewer positions are not cut, unless their logits are too many.
_SHORTEST = 16

# Maps the student's logits [B, t, V], the teacher's [B, t, V'] or None, and extras [B, t, ...].
Function = Callable[[jax.Array, Any, Any], Any]


class Readout(flax.struct.PyTreeNode):
    """Hidden states and the head that they go through: logits that do not exist yet.

    Attributes:
      hidden_BxTxD: after the final norm, as `models.forward_hidden` returns them.
      head_VxD: as it is stored; its products are those of `config.dtype`, summed in float32.
      config: the model's. With `lora`, the head is frozen.
    """

    hidden_BxTxD: jax.Array
    head_VxD: jax.Array
    config: models.ModelConfig = flax.struct.field(pytree_node=False)


def readout(params: Params, config: models.ModelConfig, hidden_BxTxD: jax.Array) -> Readout:
    """Hidden states before the model's own head, tied to its embeddings or not."""
    return Readout(hidden_BxTxD, params[_head_name(config)], config)


def predictions(params: Params, config: models.ModelConfig, t: Trajectories) -> Readout:
    """Runs a model over rows [B, T]: what predicts their tokens from the second on, [B, T - 1]."""
    inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
    return readout(params, config, models.forward_hidden(params, config, *inputs))


def map_logits(
    function: Function, student: Readout, teacher: Readout | None = None, extras: Any = None
) -> Any:
    """What a function says of every token's logits: a pytree of arrays [B, T, ...].

    Differentiable, at the price of forming the logits again: nothing of a block is kept.

    Args:
      function: of the student's logits [B, t, V], the teacher's [B, t, V'] (None without one), both
        float32 and of their own width, and the extras [B, t, ...], position by position.
      teacher: any second readout of the same tokens.
      extras: a pytree of arrays [B, T, ...].

    Raises:
      ValueError: an array of other tokens.
    """

    body = jax.checkpoint(_of_block(function))
    at_block, arrays, size = _blocks(body, student, teacher, extras)
    length = student.hidden_BxTxD.shape[1]
    if size >= length:
        return at_block(None, arrays)[1]
    _, out = jax.lax.scan(at_block, None, jax.tree.map(lambda x: _cut(x, size), arrays))
    return jax.tree.map(lambda x: _joined(x, length), out)


def _of_block(function: Function) -> Callable[..., Any]:
    """The function as a body of blocks that carries nothing."""

    def body(carry: None, student: Readout, teacher: Readout | None, extras: Any) -> Any:
        return carry, function(_logits(student), teacher and _logits(teacher), extras)

    return body


def weighted_sum(
    function: Function,
    student: Readout,
    teacher: Readout | None,
    weights_BxT: jax.Array,
    extras: Any = None,
) -> tuple[jax.Array, Any]:
    """sum(weights * value) [], which is differentiable, and the tokens' statistics, which are not.

    Tokens of weight 0, such as those of prompts and padding, cost next to nothing: every row's
    other tokens are moved together, and no blocks are formed behind those of the row that has most
    of them.

    The gradient runs into the student's hidden states and, unless it is frozen, its head; not into
    the teacher, the weights or the extras. None is computed where nothing is differentiated.

    Args:
      function: as in `map_logits`; it returns the value [B, t] and statistics, a pytree of arrays
        [B, t, ...]. Its arrays must be extras.
      weights_BxT: a token of weight 0 adds nothing, and its statistics are 0 (False).

    Raises:
      ValueError: an array of other tokens.
    """
    config = student.config
    inputs = jax.lax.stop_gradient((teacher, weights_BxT, extras))

    def weigh(value: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(weights != 0, weights * value, 0.0))

    @jax.custom_vjp
    def total(student: Readout, inputs: Any) -> tuple[jax.Array, Any]:
        teacher, weights, extras = inputs
        _, (value, statistics) = _loop(_of_block(function), None, student, teacher, weights, extras)
        return weigh(value, weights), statistics

    def forward(student: Readout, inputs: Any) -> Any:
        teacher, weights, extras = inputs
        # Devices along the batch each sum up their own rows, and meet once, after the last block.
        parts = 0 if config.lora is not None else batch_multiple(config.mesh, config.rules)
        nothing = jnp.zeros((parts, *student.head_VxD.shape), jnp.float32) if parts else None

        def body(head_gradient: Any, student: Readout, teacher: Readout | None, inputs: Any) -> Any:
            weights, extras = inputs

            def loss(logits: jax.Array) -> tuple[jax.Array, Any]:
                value, statistics = function(logits, teacher and _logits(teacher), extras)
                return weigh(value, weights), (value, statistics)

            slope, out = jax.grad(loss, has_aux=True)(_logits(student))
            hidden_gradient, added = _through_head(slope, student, parts)
            if added is not None:
                head_gradient = _place(head_gradient + added, ("batch", "vocab", None), config)
            return head_gradient, (hidden_gradient, out)

        head_gradient, (hidden_gradient, (value, statistics)) = _loop(
            body, nothing, student, teacher, weights, (weights, extras)
        )
        if parts:
            head_gradient = _place(jnp.sum(head_gradient, axis=0), ("vocab", "embed"), config)
        # An empty array carries the head's dtype.
        kept = hidden_gradient, head_gradient, student.head_VxD[:0]
        return (weigh(value, weights), statistics), kept

    def backward(kept: Any, cotangents: Any) -> Any:
        hidden, head, like = kept
        scale = cotangents[0]
        hidden = (scale * hidden).astype(hidden.dtype)
        if head is not None:
            head = (scale * head).astype(like.dtype)
        return Readout(hidden, head, config), None

    total.defvjp(forward, backward)
    value, statistics = total(student, inputs)
    return value, jax.lax.stop_gradient(statistics)


def log_probs(logits_BxTxV: jax.Array, tokens_BxT: jax.Array) -> jax.Array:
    """log p(token) [B, T] in nats."""
    chosen = jnp.take_along_axis(logits_BxTxV, tokens_BxT[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits_BxTxV, axis=-1)


def _loop(
    body: Callable[..., Any],
    carry: Any,
    student: Readout,
    teacher: Readout | None,
    weights_BxT: jax.Array,
    extras: Any,
) -> tuple[Any, Any]:
    """Runs `body(carry, student, teacher, extras) -> (carry, out)` over blocks of positions.

    They hold the tokens that have a weight; what the body says of others is 0.
    """
    length = weights_BxT.shape[1]
    at_block, arrays, size = _blocks(body, student, teacher, extras)
    counted_BxT = weights_BxT != 0

    def only_counted(x: jax.Array) -> jax.Array:
        return jnp.where(_as_wide(counted_BxT, x), x, jnp.zeros((), x.dtype))

    if size >= length:
        carry, out = at_block(carry, arrays)
        return carry, jax.tree.map(only_counted, out)
    order_BxT = jnp.argsort(~counted_BxT, axis=1, stable=True)
    blocks = jax.tree.map(lambda x: _cut(_along(x, order_BxT), size), arrays)
    needed = -(-jnp.max(jnp.sum(counted_BxT, axis=1)) // size)
    _, like = jax.eval_shape(at_block, carry, jax.tree.map(lambda x: x[0], blocks))
    count = math.ceil(length / size)
    out = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), like)

    def step(i: jax.Array, state: Any) -> Any:
        carry, out = state
        carry, new = at_block(carry, jax.tree.map(lambda x: x[i], blocks))
        return carry, jax.tree.map(lambda all_, x: all_.at[i].set(x), out, new)

    carry, out = jax.lax.fori_loop(0, needed, step, (carry, out))
    back_BxT = jnp.argsort(order_BxT, axis=1)
    out = jax.tree.map(lambda x: only_counted(_along(_joined(x, length), back_BxT)), out)
    return carry, out


def _as_wide(y_BxT: jax.Array, x: jax.Array) -> jax.Array:
    """[B, T, 1, ...], with as many axes as x has."""
    return y_BxT.reshape(y_BxT.shape + (1,) * (x.ndim - 2))


def _along(x: jax.Array, index_BxT: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, _as_wide(index_BxT, x), axis=1)


def _cut(x: jax.Array, size: int) -> jax.Array:
    """[B, T, ...] in blocks [N, B, size, ...], the last one padded with zeros."""
    batch, length = x.shape[:2]
    count = math.ceil(length / size)
    x = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(batch, count, size, *x.shape[2:]), 1, 0)


def _joined(x: jax.Array, length: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def _blocks(
    body: Callable[..., Any], student: Readout, teacher: Readout | None, extras: Any
) -> tuple[Callable[..., Any], Any, int]:
    """`body` of one block's arrays, the arrays [B, T, ...] to be cut, and a block's positions."""
    batch, length = student.hidden_BxTxD.shape[:2]
    arrays = student.hidden_BxTxD, None if teacher is None else teacher.hidden_BxTxD, extras
    for path, x in jax.tree_util.tree_leaves_with_path(arrays):
        if x.shape[:2] != (batch, length):
            name = ("student", "teacher", "weights and extras")[path[0].idx]
            raise ValueError(
                f"{name}: an array {x.shape} of other tokens than the student's [{batch}, "
                f"{length}]; its first axes must be the same."
            )
    # Cast, and gathered, once.
    student, teacher = _prepared(student), teacher and _prepared(teacher)

    def at_block(carry: Any, arrays: Any) -> Any:
        hidden, teacher_hidden, extras = arrays
        theirs = teacher and teacher.replace(hidden_BxTxD=teacher_hidden)
        return body(carry, student.replace(hidden_BxTxD=hidden), theirs, extras)

    size = block_length(student, teacher)
    if size < length:
        size = math.ceil(length / math.ceil(length / size))  # equal blocks, as far as that goes
    return at_block, arrays, size


def block_length(student: Readout, teacher: Readout | None) -> int:
    """Positions of a block, of rows that may be shorter; the arrays may be mere shapes."""
    config = student.config
    width = max(x.head_VxD.shape[0] for x in (student, teacher) if x is not None)
    rows = math.ceil(student.hidden_BxTxD.shape[0] / batch_multiple(config.mesh, config.rules))
    elements = _BLOCK_ELEMENTS * (1 if platform(config.mesh) == "cpu" else _ACCELERATOR)
    # Several blocks, so that some can be left out.
    share = max(_SHORTEST, math.ceil(student.hidden_BxTxD.shape[1] / 8))
    return max(1, min(elements // (rows * width), share))


def _prepared(x: Readout) -> Readout:
    # Left split over its columns, the head would be gathered for every block.
    head = _place(x.head_VxD.astype(x.config.dtype), ("vocab", None), x.config)
    return x.replace(head_VxD=head)


def _logits(x: Readout) -> jax.Array:
    params = {_head_name(x.config): x.head_VxD}
    logits = models.logits(params, x.config, x.hidden_BxTxD)
    return _place(logits, ("batch", None, "vocab"), x.config)


def _through_head(
    slope_BxTxV: jax.Array, x: Readout, parts: int
) -> tuple[jax.Array, jax.Array | None]:
    """dL/dh [B, t, D] and dL/dW [parts, V, D] of dL/dz: products as precise as those of the logits.

    Args:
      parts: of the rows, each summed up by itself; 0 for no dL/dW.
    """
    if x.hidden_BxTxD.dtype == jnp.bfloat16:  # float16 might underflow
        slope_BxTxV = slope_BxTxV.astype(jnp.bfloat16)

    def product(equation: str, slope: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(equation, slope, y, preferred_element_type=jnp.float32)

    def split(y: jax.Array) -> jax.Array:
        return y.reshape(parts, y.shape[0] // parts, *y.shape[1:])

    hidden = product("btv,vd->btd", slope_BxTxV, x.head_VxD).astype(x.hidden_BxTxD.dtype)
    if not parts:
        return hidden, None
    return hidden, product("pbtv,pbtd->pvd", split(slope_BxTxV), split(x.hidden_BxTxD))


def _head_name(config: models.ModelConfig) -> str:
    return "embed" if config.tie_embeddings else "head"


def _place(x: jax.Array, axes: LogicalAxes, config: models.ModelConfig) -> jax.Array:
    return constrain(x, axes, config.mesh, config.rules)
