"""Eq. 7 and Eq. 9 against NumPy, and what the policy starts from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atesd.control.policy import advantages, init_policy, policy_loss, policy_optimizer, shapes
from atesd.settings import ControllerSettings

from . import controller_reference as reference

LOSS = jax.jit(jax.value_and_grad(policy_loss))


def test_starts_at_the_same_symmetric_beta_everywhere():
    params = init_policy(jax.random.key(0), 6, 32)
    features = 3 * jax.random.normal(jax.random.key(1), (50, 6))
    a, b = shapes(params, features)
    np.testing.assert_allclose(a, 1 + np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(a, b)
    assert float(jnp.std(params["hidden"]["kernel"])) > 0.2  # states differ once it learns


def test_shapes_stay_above_one():
    params = init_policy(jax.random.key(0), 6, 8)
    params["output"]["bias"] = jnp.asarray([-30.0, 30.0])
    a, b = shapes(params, jnp.ones((2, 3, 6)))
    assert a.shape == (2, 3)
    assert np.all(a >= 1) and np.allclose(b, 31)


@given(
    seed=st.integers(0, 2**32 - 1),
    weight=st.sampled_from([0.0, 0.01, 2.0]),
    target=st.sampled_from([-0.15, -1.0, 0.5]),
)
def test_loss_and_gradient_equal_the_equations(seed, weight, target):
    shape = (4, 3)
    rng = np.random.default_rng(seed)
    params = {
        "hidden": {"kernel": rng.normal(size=(6, 5)), "bias": rng.normal(size=5)},
        # Shapes below 8: beyond, jax's betaln is only right to 1e-6, in float64, too.
        "output": {"kernel": rng.uniform(-1, 1, (5, 2)), "bias": rng.uniform(-1, 1, 2)},
    }
    features = rng.normal(size=(*shape, 6))
    exposures = np.clip(rng.random(shape), 0.05, 0.95)
    rewards = rng.normal(size=shape)
    assert np.max(reference.forward(params, features)[2:]) < 8
    expected, expected_gradient = reference.loss_and_gradient(
        params, features, exposures, rewards, weight, target
    )
    with jax.enable_x64(True):
        loss, gradient = LOSS(params, features, exposures, rewards, weight, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=1e-12)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-10),
        gradient,
        expected_gradient,
    )


def test_advantages_are_standardised_within_each_group():
    rewards = jnp.asarray([[1.0, 100.0], [2.0, 400.0], [6.0, 100.0]])
    expected = (rewards - rewards.mean(0)) / rewards.std(0)
    np.testing.assert_allclose(advantages(rewards), expected, rtol=1e-5)


def test_equal_rewards_pull_nowhere():
    params = init_policy(jax.random.key(0), 6, 8)
    features = jax.random.normal(jax.random.key(1), (4, 1, 6))
    exposures = jnp.asarray([[0.1], [0.3], [0.5], [0.9]], jnp.float32)
    loss, gradient = LOSS(
        params, features, exposures, jnp.full((4, 1), 3.7, jnp.float32), 0.0, -0.15
    )
    assert float(loss) == 0
    assert all(not np.any(g) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("target", "pulled"), [(-0.15, True), (0.5, False)])
def test_entropy_is_penalised_above_its_target_only(target, pulled):
    params = init_policy(jax.random.key(0), 6, 8)  # entropy -0.077 nats
    features, equal = jnp.ones((4, 1, 6)), jnp.zeros((4, 1))
    gradient = LOSS(params, features, equal + 0.3, equal, 1.0, target)[1]["output"]["bias"]
    if pulled:
        assert np.all(gradient < 0)  # larger shapes, a sharper policy
    else:
        assert not np.any(gradient)


def test_a_step_makes_rewarded_exposures_more_likely():
    settings = ControllerSettings()
    params = init_policy(jax.random.key(0), 6, 8)
    features = jax.random.normal(jax.random.key(1), (4, 1, 6))
    exposures = jnp.asarray([[0.1], [0.2], [0.8], [0.9]], jnp.float32)
    optimizer = policy_optimizer(settings)
    _, gradient = LOSS(params, features, exposures, exposures, 0.0, -0.15)
    updates, _ = optimizer.update(gradient, optimizer.init(params))
    a, b = shapes(jax.tree.map(jnp.add, params, updates), features)
    assert np.all(a > b)
