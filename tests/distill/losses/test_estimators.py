"""Every row of the table of identities, by enumerating the sampled token in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses import estimators as e
from distill.losses.divergence import divergence

# (name, beta): beta 0 and 1 are special cases of the code.
FAMILY = [("reverse_kl", 0.5), ("forward_kl", 0.5)]
FAMILY += [("jsd", beta) for beta in (0.0, 1e-3, 0.1, 0.5, 0.9, 1.0)]
SEEDS = range(4)
VOCAB = 6


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed):
    """Teacher's and student's logits [V]."""
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1.5, (2, VOCAB)))


def log_ratios(teacher, student):
    """d of every token [V]."""
    return jax.nn.log_softmax(teacher) - jax.nn.log_softmax(student)


def expected_gradient(fn, student):
    """sum over y of p(y) grad fn(logits)[y]: y was drawn before anything is differentiated."""
    jacobian_VxV = jax.jacobian(fn)(student)
    return jax.nn.softmax(student) @ jacobian_VxV


def policy_gradient(advantage_V, student):
    """Descent direction [V] of the mean of -A log p(y), A detached."""
    advantage_V = jax.lax.stop_gradient(advantage_V)
    return expected_gradient(lambda s: -advantage_V * jax.nn.log_softmax(s), student)


def exact_gradient(name, teacher, student, beta=0.5):
    return jax.grad(lambda s: divergence(name, teacher, s, beta))(student)


def assert_equal(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("estimator", "name"), [(e.k1, None), (e.k2, "reverse_kl"), (e.k3, "forward_kl")]
)
def test_gradient_of_an_estimator_as_a_loss(seed, estimator, name):
    teacher, student = draw(seed)
    got = expected_gradient(lambda s: estimator(log_ratios(teacher, s)), student)
    assert_equal(got, exact_gradient(name, teacher, student) if name else jnp.zeros(VOCAB))
    for other in {"reverse_kl", "forward_kl"} - {name}:
        assert not np.allclose(got, exact_gradient(other, teacher, student), rtol=1e-2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "beta"), FAMILY)
def test_gradient_of_an_advantage(seed, name, beta):
    teacher, student = draw(seed)
    advantage = e.advantage(name, log_ratios(teacher, student), beta)
    assert_equal(policy_gradient(advantage, student), exact_gradient(name, teacher, student, beta))


def test_formulas_of_the_advantages():
    d = jnp.array([-2.0, 0.0, 0.7])
    assert_equal(e.advantage("reverse_kl", d), d)
    assert_equal(e.advantage("forward_kl", d), np.exp(d) - 1)
    assert_equal(e.advantage("jsd", d, 0.3), 0.7 * np.log(0.7 + 0.3 * np.exp(d)))


def test_advantages_carry_no_gradient():
    teacher, student = draw(0)
    for name, beta in FAMILY:
        grad = jax.grad(lambda s, n=name, b=beta: e.advantage(n, log_ratios(teacher, s), b).sum())
        assert not np.any(grad(student))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_whole_position_divergence_as_an_advantage_has_no_gradient(seed):
    teacher, student = draw(seed)
    for name, beta in FAMILY:
        constant = jnp.full(VOCAB, divergence(name, teacher, student, beta))
        np.testing.assert_allclose(policy_gradient(constant, student), 0, atol=1e-12)


def test_adding_the_kl_to_the_advantage_keeps_the_mean_and_usually_lowers_the_variance():
    lower = []
    for seed in range(100):
        teacher, student = draw(seed)
        p, d = np.asarray(jax.nn.softmax(student)), np.asarray(log_ratios(teacher, student))
        score_VxV = np.eye(VOCAB) - p  # grad log p(y), by y
        centred = d + float(divergence("reverse_kl", teacher, student))
        means = [p @ (a[:, None] * score_VxV) for a in (d, centred)]
        assert_equal(means[0], means[1])
        if seed in SEEDS:
            assert_equal(policy_gradient(jnp.asarray(centred), student), -means[1])
        squares = [p @ np.sum((a[:, None] * score_VxV) ** 2, -1) for a in (d, centred)]
        lower.append(squares[1] < squares[0])
    assert np.mean(lower) > 0.5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "beta"), FAMILY)
def test_sampled_values_are_unbiased_and_never_negative(seed, name, beta):
    teacher, student = draw(seed)
    values = e.sampled_divergence(name, log_ratios(teacher, student), beta)
    assert np.all(np.asarray(values) >= 0)
    assert_equal(jax.nn.softmax(student) @ values, divergence(name, teacher, student, beta))


def test_values_of_k1_k2_k3():
    teacher, student = draw(1)
    d = log_ratios(teacher, student)
    p, exact = jax.nn.softmax(student), divergence("reverse_kl", teacher, student)
    assert_equal(p @ e.k1(d), exact)
    assert_equal(p @ e.k3(d), exact)
    assert_equal(e.k2(d), np.asarray(d) ** 2 / 2)


@pytest.mark.parametrize(("near", "name"), [(0.0, "forward_kl"), (1.0, "reverse_kl")])
def test_near_its_ends_jsd_is_beta_times_one_minus_beta_kl(near, name):
    """At them the formula of the JSD is 0, which is why they are special cases."""
    teacher, student = draw(2)
    d = log_ratios(teacher, student)
    beta = abs(near - 1e-6)
    scale = beta * (1 - beta)
    for fn in (e.advantage, e.sampled_divergence):
        np.testing.assert_allclose(fn("jsd", d, beta) / scale, fn(name, d), rtol=1e-3, atol=1e-4)
        assert_equal(fn("jsd", d, near), fn(name, d))
    exact = divergence("jsd", teacher, student, beta) / scale
    np.testing.assert_allclose(exact, divergence(name, teacher, student), rtol=1e-3)


def test_bad_arguments():
    for fn in (e.advantage, e.sampled_divergence):
        with pytest.raises(ValueError, match="choose one of"):
            fn("k1", jnp.zeros(3))
        with pytest.raises(ValueError, match="beta"):
            fn("jsd", jnp.zeros(3), 1.5)
