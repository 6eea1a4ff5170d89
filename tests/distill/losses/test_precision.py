"""16-bit compute: what stays in 32 bits, and how far the gradients move."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import distill.train.update
import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.state import create_state
from distill.trajectories import Source, Trajectories

STUDENT = models.ModelConfig("qwen3", 61, 32, 48, 2, 4, 2, 8, qk_norm=True, dtype="bfloat16")
TEACHER = models.ModelConfig("qwen2", 61, 32, 48, 1, 4, 2, 8, qkv_bias=True, dtype="bfloat16")
# Whatever sums or inverts an exponential; a sigmoid in the MLP's activation may have 16 bits.
WIDE = ("exp", "log", "log1p", "rsqrt", "reduce_max")


def batch(rows: int = 4, width: int = 12) -> Trajectories:
    rng = np.random.default_rng(0)
    shape = (rows, width)
    likelihood = np.zeros(shape, np.float32)
    likelihood[:, 1:6] = 1
    divergence = np.zeros(shape, np.float32)
    divergence[:, 6:] = 1
    return Trajectories(
        tokens_BxT=jnp.asarray(rng.integers(0, 61, shape), jnp.int32),
        source_BxT=jnp.full(shape, Source.STUDENT),
        likelihood_weights_BxT=jnp.asarray(likelihood),
        divergence_weights_BxT=jnp.asarray(divergence),
        positions_BxT=jnp.broadcast_to(jnp.arange(width), shape),
        segment_ids_BxT=jnp.ones(shape, jnp.int32),
    )


def make_step(student, teacher, optimizer):
    def loss(params, teacher_params, trajectories):
        signal = Signal("reverse_kl")
        return trajectory_loss(params, student, trajectories, teacher_params, teacher, signal)

    return distill.train.update.make_train_step(loss, optimizer)


@pytest.fixture(scope="module")
def parameters():
    """The student's master weights, and a teacher in 16 bits."""
    student = models.init(jax.random.key(0), STUDENT)
    return student, models.init(jax.random.key(1), TEACHER, "bfloat16")


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in jax.tree.leaves(
                parameter, is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr)
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_norms_softmax_and_losses_have_32_bits_and_products_16(parameters):
    student, teacher = parameters
    optimizer = optax.adamw(1e-3)
    step = make_step(STUDENT, TEACHER, optimizer)
    traced = jax.make_jaxpr(step)(create_state(student, optimizer, {}), teacher, batch())
    narrow_products = 0
    for equation in equations(traced.jaxpr):
        name = equation.primitive.name
        dtypes = {x.aval.dtype for x in (*equation.invars, *equation.outvars) if hasattr(x, "aval")}
        floats = {x for x in dtypes if jnp.issubdtype(x, jnp.floating)}
        if name in WIDE:
            assert jnp.bfloat16 not in floats, equation
        if name == "dot_general" and {x.aval.dtype for x in equation.invars} == {
            jnp.dtype("bfloat16")
        }:
            narrow_products += 1
    # Two stacks of layers, forward and backward, and two heads.
    assert narrow_products > 20


def test_master_weights_and_optimizer_keep_32_bits(parameters):
    student, teacher = parameters
    optimizer = optax.adamw(1e-6)
    state = create_state(student, optimizer, {})
    new, metrics = jax.jit(make_step(STUDENT, TEACHER, optimizer))(state, teacher, batch())
    floats = [x for x in jax.tree.leaves((new.params, new.opt_state)) if x.dtype.kind == "f"]
    assert floats and all(x.dtype == jnp.float32 for x in floats)
    assert all(x.dtype == jnp.float32 for x in (metrics["loss"], metrics["grad_norm"]))
    # An update far below 16 bits' resolution of a weight of 1 is kept.
    moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), new.params, state.params)
    assert all(0 < x < 1e-5 for x in jax.tree.leaves(moved))


@pytest.mark.slow
def test_gradients_point_where_those_of_32_bits_do(parameters):
    student, teacher = parameters

    def gradients(dtype):
        one, two = STUDENT.replace(dtype=dtype), TEACHER.replace(dtype=dtype)
        signal = Signal("reverse_kl")
        return jax.jit(
            jax.grad(lambda p: trajectory_loss(p, one, batch(), teacher, two, signal).mean)
        )(student)

    for ours, theirs in zip(
        *map(jax.tree.leaves, (gradients("bfloat16"), gradients("float32"))), strict=True
    ):
        assert ours.dtype == jnp.float32
        cosine = jnp.vdot(ours, theirs) / (jnp.linalg.norm(ours) * jnp.linalg.norm(theirs))
        assert cosine > 0.995
