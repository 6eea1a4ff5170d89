"""A batch cut into parts: the same update as at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill.losses.signal import Signal
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.state import create_state
from distill.train.update import make_train_step
from grpo.policy_gradient import (
    GrpoSettings,
    SurrogateSums,
    policy_gradient_loss,
    surrogate_sums,
)

from ..losses.test_loss import STUDENT, TEACHER, make, params  # noqa: F401 - a fixture

ROWS = 6


def losses(student, teacher, t):
    return trajectory_loss(student, STUDENT, t, teacher, TEACHER, Signal("jsd", 0.3))


@pytest.mark.parametrize("parts", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6)), 3])
def test_parts_give_the_update_of_the_whole(parts, params):  # noqa: F811
    """Rows hold different numbers of trained tokens, and one none at all: means of means would differ."""
    t = make(3, ROWS)
    t = t.replace(
        likelihood_weights_BxT=t.likelihood_weights_BxT.at[1].set(0).at[2].multiply(3.0),
        divergence_weights_BxT=t.divergence_weights_BxT.at[1].set(0),
    )
    # The momentum is the gradient, clipped by its global norm.
    optimizer = optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1, momentum=0.9))
    state = create_state(params[0], optimizer)
    whole, metrics = jax.jit(make_train_step(losses, optimizer))(state, params[1], t)
    step = make_train_step(losses, optimizer, STUDENT, parts)
    several, found = jax.jit(step)(state, params[1], t)
    assert metrics.keys() == found.keys()
    for name in metrics:
        np.testing.assert_allclose(found[name], metrics[name], rtol=2e-6, err_msg=name)
    for a, b in zip(jax.tree.leaves(several), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())
    assert metrics["grad_norm"] > 0.05  # so that clipping acts


def distil(signal):
    return lambda p, q, batch: trajectory_loss(p, STUDENT, batch[0], q, TEACHER, signal)


def grpo(**fields):
    """The student that wrote the text is another, so that ratios clip; the teacher is the reference."""
    settings = GrpoSettings(kl_weight=0.1, **fields)

    def loss(student, teacher, batch):
        t, advantages = batch
        old = jax.tree.map(lambda x: 1.1 * x, jax.lax.stop_gradient(student))
        return policy_gradient_loss(
            student, STUDENT, settings, t, advantages, old, teacher, TEACHER
        )

    return loss


METHODS = {
    "SFT, SKD, RFT, ImitKD": distil(None),
    "MOTAB with a divergence": distil(Signal("reverse_kl")),
    "OPD, top 3": distil(Signal("reverse_kl", support="top_k", top_k=3)),
    "OPD, sampled": distil(Signal("reverse_kl", support="sampled", form="advantage")),
    "GKD": distil(Signal("jsd", 0.7)),
    "GRPO": grpo(),
    "GRPO, one mean over tokens": grpo(normalise="token"),
}


@pytest.mark.parametrize(
    "method",
    [
        method if method == "GRPO" else pytest.param(method, marks=pytest.mark.slow)
        for method in METHODS
    ],
)
def test_of_every_method(method, params):  # noqa: F811
    """1, 2 and 4 parts; rows of unequal length, one that trains nothing."""
    t = make(5, 8)
    t = t.replace(
        likelihood_weights_BxT=t.likelihood_weights_BxT.at[3].set(0),
        divergence_weights_BxT=t.divergence_weights_BxT.at[3].set(0).at[4, 6:].set(0),
    )
    advantages = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.1, momentum=0.9))

    def run(parts):
        step = make_train_step(METHODS[method], optimizer, STUDENT, parts)
        step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
        return step(create_state(params[0], optimizer), params[1], (t, advantages))

    with jax.default_matmul_precision("highest"):
        whole, metrics = run(1)
        for parts in (2, 4):
            state, found = run(parts)
            for name in metrics:
                np.testing.assert_allclose(
                    found[name], metrics[name], rtol=1e-5, atol=1e-7, err_msg=name
                )
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6 * np.abs(b).max())
    assert metrics["grad_norm"] > 0.01 and metrics["idle_rows"] == 1


def test_a_batch_that_trains_nothing_changes_nothing(params):  # noqa: F811
    t = jax.tree.map(jnp.zeros_like, make(3, ROWS))
    optimizer = optax.sgd(0.1)
    state = create_state(params[0], optimizer)
    step = jax.jit(make_train_step(losses, optimizer, None, 2))
    new, metrics = step(state, params[1], t)
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)
    assert metrics["loss"] == 0 and metrics["loss_tokens"] == 0


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_sums_of_the_surrogate_add_up(normalise):
    """So that parts of a batch may be added: those of all rows are those of the rows together."""
    rng = np.random.default_rng(0)
    shape = 4, 5
    log_probs, old, reference = jnp.asarray(rng.normal(-1, 0.3, (3, *shape)), jnp.float32)
    weights = jnp.asarray(rng.random(shape) < 0.6, jnp.float32).at[2].set(0.0)
    advantages = jnp.asarray(rng.normal(0, 1, 4), jnp.float32)
    settings = GrpoSettings(normalise=normalise, kl_weight=0.1)

    def sums(rows) -> SurrogateSums:
        arrays = (log_probs, old, advantages, weights, reference)
        return surrogate_sums(settings, *(x[rows] for x in arrays))

    whole = sums(slice(None))
    added = jax.tree.map(jnp.add, sums(slice(0, None, 2)), sums(slice(1, None, 2)))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
def test_parts_keep_less_in_memory(params):  # noqa: F811
    """What is kept for the backward pass is that of a part."""
    t = make(3, 24, 64)
    optimizer = optax.sgd(0.1)
    state = create_state(params[0], optimizer)

    def temporaries(parts: int) -> int:
        step = jax.jit(make_train_step(losses, optimizer, None, parts))
        return step.lower(state, params[1], t).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 0.5 * temporaries(1)


def test_what_does_not_divide_is_refused(params):  # noqa: F811
    optimizer = make_optimizer(OptimizerSettings(), 3)
    state = create_state(params[0], optimizer)
    step = make_train_step(losses, optimizer, STUDENT, 4)
    with pytest.raises(ValueError, match=r"micro_batches=4 does not divide a batch of 6 rows"):
        jax.eval_shape(step, state, params[1], make(3, ROWS))
    with pytest.raises(ValueError, match=r"optimizer\.micro_batches=0 must be at least 1"):
        make_train_step(losses, optimizer, STUDENT, 0)
    with pytest.raises(ValueError, match=r"optimizer\.micro_batches"):
        OptimizerSettings(micro_batches=0)


def test_sums_are_divided_by_their_count():
    one = jnp.float32(1.0)
    sums = LossSums(6 * one, 4 * one, 2 * one, 2 * one, 1 * one, 0 * one)
    assert sums.count == 3 and sums.mean == 2
