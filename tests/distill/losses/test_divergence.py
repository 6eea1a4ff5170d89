"""Divergences against NumPy, closed forms and each other; gradients against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.losses import divergence as d


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def numpy_kl(a, b):
    return np.sum(a * np.log(a / b), -1)


def numpy_divergence(name, q, p, beta=0.5):
    if name == "forward_kl":
        return numpy_kl(q, p)
    if name == "reverse_kl":
        return numpy_kl(p, q)
    m = beta * q + (1 - beta) * p
    return beta * numpy_kl(q, m) + (1 - beta) * numpy_kl(p, m)


@given(st.integers(0, 2**32 - 1), st.sampled_from(d.DIVERGENCES), st.floats(0.05, 0.95))
def test_values_equal_numpy(seed, name, beta):
    teacher, student = np.random.default_rng(seed).normal(0, 3, (2, 4, 7))
    got = d.divergence(name, jnp.asarray(teacher), jnp.asarray(student), beta)
    expected = numpy_divergence(name, softmax(teacher), softmax(student), beta)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-6)
    assert np.all(np.asarray(got) > -1e-6)


@pytest.mark.parametrize("name", d.DIVERGENCES)
def test_equal_distributions_have_none(name):
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, (5, 9)))
    np.testing.assert_allclose(d.divergence(name, logits, logits + 2.0), 0, atol=1e-6)


def test_two_tokens_in_closed_form():
    q, p = 0.8, 0.3
    teacher, student = jnp.log(jnp.array([q, 1 - q])), jnp.log(jnp.array([p, 1 - p]))
    expected = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    assert float(d.forward_kl(teacher, student)) == pytest.approx(expected, rel=1e-5)
    assert float(d.reverse_kl(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_ends_of_jsd_are_the_two_kls_and_near_them_it_vanishes_in_proportion():
    teacher, student = jnp.asarray(np.random.default_rng(1).normal(0, 1, (2, 6)))
    forward, reverse = d.forward_kl(teacher, student), d.reverse_kl(teacher, student)
    assert float(d.jsd(teacher, student, 0.0)) == float(forward)
    assert float(d.jsd(teacher, student, 1.0)) == float(reverse)
    beta = 1e-3
    assert float(d.jsd(teacher, student, beta)) == pytest.approx(beta * float(forward), rel=0.02)
    assert float(d.jsd(teacher, student, 1 - beta)) == pytest.approx(
        beta * float(reverse), rel=0.02
    )
    with pytest.raises(ValueError, match="beta"):
        d.jsd(teacher, student, 1.2)


@pytest.mark.parametrize("name", d.DIVERGENCES)
def test_gradients_equal_finite_differences(name):
    teacher, student = np.random.default_rng(2).normal(0, 1, (2, 5))
    grad = jax.grad(lambda x: d.divergence(name, jnp.asarray(teacher), x))(jnp.asarray(student))
    eps = 1e-5
    for i in range(5):
        shift = np.eye(5)[i] * eps
        up = numpy_divergence(name, softmax(teacher), softmax(student + shift))
        down = numpy_divergence(name, softmax(teacher), softmax(student - shift))
        assert float(grad[i]) == pytest.approx((up - down) / (2 * eps), abs=1e-5)


def test_impossible_tokens_do_not_spoil_a_gradient():
    """Logits far apart underflow to probability 0: 0 log 0 is 0, and gradients stay finite."""
    teacher = jnp.array([0.0, -1e4, 3.0])
    student = jnp.array([1.0, 0.0, -1e4])
    for name in d.DIVERGENCES:
        value, grad = jax.value_and_grad(lambda x, n=name: d.divergence(n, teacher, x))(student)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grad))


def test_unknown_name():
    with pytest.raises(ValueError, match="choose one of"):
        d.divergence("k1", jnp.zeros(3), jnp.zeros(3))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_top_k_entropy_renormalises_the_most_likely(seed, k):
    logits = np.random.default_rng(seed).normal(0, 2, (3, 12))
    top = np.sort(softmax(logits), -1)[:, ::-1][:, :k]
    top = top / top.sum(-1, keepdims=True)
    got = d.top_k_entropy(jnp.asarray(logits), k)
    np.testing.assert_allclose(got, -np.sum(top * np.log(top), -1), rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(got) <= np.log(min(k, 12)) + 1e-5)
