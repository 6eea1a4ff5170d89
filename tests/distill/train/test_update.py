"""A batch that is no good changes nothing, in the train step of every method."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import motab
from distill.losses.signal import Signal
from distill.losses.surrogate import group_advantages
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.state import create_state
from distill.train.update import make_train_step
from grpo.policy_gradient import GrpoSettings, policy_gradient_loss

from ...motab import tiny
from ..losses.test_loss import make

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


class Plain(flax.struct.PyTreeNode):
    """A loss of one number."""

    mean: jax.Array
    tokens: jax.Array
    metrics: dict


def product(params, x):
    return Plain(jnp.sum(params["w"] * x), jnp.sum(x != 0), {})


def root(params, x):
    """Finite, with a gradient that is not where x is 0."""
    return Plain(jnp.sum(jnp.sqrt(jnp.abs(params["w"] * x))), jnp.sum(x != 0), {})


@pytest.mark.parametrize(
    ("loss", "bad", "skipped", "idle"),
    [
        (product, [1.0, np.nan, 1.0], 1, 0),
        (product, [1.0, np.inf, 1.0], 1, 0),
        (product, [1e30, 1e30, 1e30], 1, 0),  # finite, but not their norm
        (root, [1.0, 0.0, 1.0], 1, 0),
        (product, [0.0, 0.0, 0.0], 0, 1),
    ],
)
def test_a_bad_batch_changes_nothing_and_the_next_goes_on(loss, bad, skipped, idle):
    step = jax.jit(make_train_step(loss, OPTIMIZER))
    state = create_state({"w": jnp.array([0.5, -2.0, 1.0])}, OPTIMIZER, {"n": jnp.ones(2)})
    good = jnp.array([0.3, 0.1, -0.2])
    state, metrics = step(state, good)
    assert (metrics["skipped"], metrics["idle"]) == (0, 0)
    after, metrics = step(state, jnp.array(bad))
    assert (metrics["skipped"], metrics["idle"]) == (skipped, idle)
    assert int(after.step) == 2
    assert_same(after.replace(step=state.step), state)
    went_on, _ = step(after, good)
    without, _ = step(state, good)
    assert_same(went_on.replace(step=without.step), without)
    assert not np.array_equal(went_on.params["w"], after.params["w"])


def weight(state):
    return create_state({"w": jnp.array([0.5, -2.0, 1.0])}, state)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(1e39),  # an infinite rate
        optax.adamw(3e38, weight_decay=10.0),  # an update beyond float32
        optax.chain(optax.sgd(1.0), optax.scale(jnp.nan)),
        optax.adamw(1e-2, eps=0.0),  # 0 / 0 where a gradient is 0
    ],
)
def test_an_update_that_is_not_finite_is_not_made(optimizer):
    """Loss and gradient say nothing of it."""
    state = weight(optimizer)
    new, metrics = make_train_step(product, optimizer)(state, jnp.array([1.0, 0.0, -2.0]))
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    assert (metrics["skipped"], metrics["idle"]) == (1, 0)
    assert_same(new.replace(step=state.step), state)


def test_moments_that_are_spoilt_move_nothing():
    optimizer, x = optax.adam(1e-2), jnp.array([1.0, 3.0, -2.0])
    state = weight(optimizer)
    spoilt = state.replace(opt_state=jax.tree.map(lambda m: m * jnp.nan, state.opt_state))
    new, metrics = make_train_step(product, optimizer)(spoilt, x)
    assert metrics["skipped"] == 1
    np.testing.assert_array_equal(new.params["w"], state.params["w"])


def test_a_moment_that_would_overflow_is_not_kept():
    """Its square is infinite, the update it gives 0, and so would be every one after it."""
    optimizer = optax.adam(1e-2)
    state = weight(optimizer)
    step = make_train_step(product, optimizer)
    huge = jnp.array([0.0, 1e19, 1e19])
    assert np.isfinite(optax.tree.norm({"w": huge}))
    optimizer_2 = optax.scale_by_adam(b2=0.0, eps=1.0)
    wide = optax.chain(optax.scale(10.0), optimizer_2)
    new, metrics = make_train_step(product, wide)(weight(wide), huge)
    assert metrics["skipped"] == 1
    assert_same(new.params, state.params)
    after, metrics = step(state, jnp.array([0.0, 1.0, 1.0]))
    assert metrics["skipped"] == 0 and not np.array_equal(after.params["w"], state.params["w"])


def test_an_infinity_that_an_optimizer_keeps_on_purpose_is_let_be():
    """Such as the best value so far."""

    def init(params):
        return {"best": jnp.inf}

    keeper = optax.chain(
        optax.sgd(0.1), optax.GradientTransformation(init, lambda u, s, p=None: (u, s))
    )
    _, metrics = make_train_step(product, keeper)(weight(keeper), jnp.array([1.0, 2.0, 0.0]))
    assert metrics["skipped"] == 0


def test_a_good_batch_is_a_plain_update_of_optax():
    state = create_state({"w": jnp.array([0.5, -2.0, 1.0])}, OPTIMIZER)
    x = jnp.array([3.0, 1.0, -2.0])
    new, metrics = make_train_step(product, OPTIMIZER)(state, x)
    updates, opt_state = OPTIMIZER.update({"w": x}, state.opt_state, state.params)
    np.testing.assert_array_equal(new.params["w"], state.params["w"] + updates["w"])
    assert_same(new.opt_state, opt_state)
    assert metrics["grad_norm"] == pytest.approx(14**0.5)


SETTINGS = {
    "likelihood": motab.MotabSettings(safe_loss="likelihood"),
    "reverse_kl": motab.MotabSettings(safe_loss="reverse_kl"),
}


def motab_step(name):
    step = motab.make_train_step(tiny.STUDENT, tiny.TEACHER, SETTINGS[name], OPTIMIZER)
    teacher = tiny.params(tiny.TEACHER, 2)
    return lambda state, t: step(state, teacher, t)


def distillation_step():
    teacher, signal = tiny.params(tiny.TEACHER, 2), Signal("forward_kl", support="top_k", top_k=3)
    return make_train_step(
        lambda params, t: trajectory_loss(params, tiny.STUDENT, t, teacher, tiny.TEACHER, signal),
        OPTIMIZER,
    )


def grpo_step(rewards=(1.0, 0.0, 0.0, 1.0)):
    advantages = group_advantages(jnp.array(rewards), 2)
    return make_train_step(
        lambda params, t: policy_gradient_loss(params, tiny.STUDENT, GrpoSettings(), t, advantages),
        OPTIMIZER,
    )


STEPS = {
    "motab": lambda: motab_step("likelihood"),
    "motab, divergence": lambda: motab_step("reverse_kl"),
    "distillation": distillation_step,
    "grpo": grpo_step,
}


def weigh(t, likelihood, divergence):
    return t.replace(likelihood_weights_BxT=likelihood, divergence_weights_BxT=divergence)


@pytest.mark.parametrize(
    "method",
    [
        method if method in ("motab", "grpo") else pytest.param(method, marks=pytest.mark.slow)
        for method in STEPS
    ],
)
def test_of_every_method(method):
    """Weights that are not finite, then a batch in which no row trains: empty, dropped, truncated."""
    step = jax.jit(STEPS[method]())
    start = create_state(tiny.params(tiny.STUDENT, 1), OPTIMIZER)
    t = make(0, rows=4)
    assert np.all(np.any(t.likelihood_weights_BxT, axis=1))
    state, metrics = step(start, t)
    assert (metrics["skipped"], metrics["idle"], metrics["idle_rows"]) == (0, 0, 0)
    assert not np.array_equal(state.params["embed"], start.params["embed"])

    bad = weigh(t, t.likelihood_weights_BxT.at[1].multiply(jnp.inf), t.divergence_weights_BxT)
    after, metrics = step(state, bad)
    assert (metrics["skipped"], metrics["idle"]) == (1, 0)
    assert_same(after.replace(step=state.step), state)

    zero = jnp.zeros_like(t.likelihood_weights_BxT)
    after, metrics = step(state, weigh(t, zero, zero))
    assert (metrics["skipped"], metrics["idle"], metrics["idle_rows"]) == (0, 1, 4)
    assert metrics["loss"] == metrics["grad_norm"] == metrics["loss_tokens"] == 0
    assert_same(after.replace(step=state.step), state)

    # A row without weights is as if it were not there.
    some = jnp.array([1.0, 1.0, 0.0, 0.0])[:, None]
    few = weigh(t, t.likelihood_weights_BxT * some, t.divergence_weights_BxT * some)
    assert step(state, few)[1]["idle_rows"] == 2


def test_groups_without_a_signal_have_no_gradient():
    state = create_state(tiny.params(tiny.STUDENT, 1), OPTIMIZER)
    t = make(0, rows=4)
    after, metrics = jax.jit(grpo_step((1.0, 1.0, 0.0, 0.0)))(state, t)
    assert (metrics["idle"], metrics["grad_norm"], metrics["idle_rows"]) == (1, 0, 0)
    assert_same(after.replace(step=state.step), state)
