"""The Beta distribution against SciPy, its gradients against differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from atesd.control import beta

SHAPES = [(1.0, 1.0), (1.69, 1.69), (1.9, 1.45), (2.4, 1.4), (1.01, 7.5), (30.0, 12.0), (9.0, 80.0)]
SAMPLE = jax.jit(beta.sample)


# The last shapes' entropy has terms too large for float32.
PRECISIONS = [(s, np.float32) for s in SHAPES[:-1]] + [(s, np.float64) for s in SHAPES]


@pytest.mark.parametrize(("shapes", "dtype"), PRECISIONS)
def test_values_equal_scipys(shapes, dtype):
    x = np.linspace(0.05, 0.95, 19, dtype=dtype)
    a, b = (dtype(shape) for shape in shapes)
    expected = scipy.stats.beta(a, b)
    with jax.enable_x64(dtype == np.float64):
        log_prob, entropy = beta.log_prob(x, a, b), beta.entropy(a, b)
        assert log_prob.dtype == entropy.dtype == dtype
    np.testing.assert_allclose(log_prob, expected.logpdf(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(entropy, expected.entropy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(beta.mean(a, b), expected.mean(), rtol=1e-6)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_samples_pass_kolmogorov_and_smirnov(a, b):
    draws = 20_000
    x = SAMPLE(jax.random.key(3), jnp.full(draws, a), jnp.full(draws, b))
    assert scipy.stats.kstest(x, scipy.stats.beta(a, b).cdf).pvalue > 0.01
    other = scipy.stats.beta(a * 1.1, b)
    assert scipy.stats.kstest(x, other.cdf).pvalue < 1e-3  # the test can tell


def test_density_ends_with_the_interval():
    assert beta.log_prob(jnp.asarray([-0.1, 1.1]), 2.0, 2.0).tolist() == [-np.inf, -np.inf]
    np.testing.assert_allclose(beta.log_prob(jnp.asarray([0.0, 1.0]), 1.0, 1.0), 0.0, atol=1e-5)


def test_entropy_is_at_most_the_uniforms():
    a, b = np.random.default_rng(0).uniform(1, 20, (2, 1000)).astype(np.float32)
    assert np.all(beta.entropy(a, b) <= 1e-6)
    assert abs(float(beta.entropy(jnp.float32(1), jnp.float32(1)))) < 1e-6


def differences(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_gradients_equal_differences_of_scipys_values(a, b):
    x = 0.3
    with jax.enable_x64(True):
        of_log_prob = jax.grad(beta.log_prob, (0, 1, 2))(x, a, b)
        of_entropy = jax.grad(beta.entropy, (0, 1))(a, b)
    logpdf = scipy.stats.beta.logpdf
    expected = [
        differences(lambda x: logpdf(x, a, b), x),
        differences(lambda a: logpdf(x, a, b), a),
        differences(lambda b: logpdf(x, a, b), b),
    ]
    np.testing.assert_allclose(of_log_prob, expected, rtol=1e-6, atol=1e-6)
    entropy = scipy.stats.beta.entropy
    expected = [differences(lambda a: entropy(a, b), a), differences(lambda b: entropy(a, b), b)]
    np.testing.assert_allclose(of_entropy, expected, rtol=1e-5, atol=1e-6)
