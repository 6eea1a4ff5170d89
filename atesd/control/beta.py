"""The Beta distribution on the unit interval, in nats; its shapes a and b [...] are above 0."""

from __future__ import annotations

import jax
from jax.scipy.special import betaln, digamma
from jax.scipy.stats import beta


def log_prob(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Log-density at x in [0, 1]; -inf outside."""
    return beta.logpdf(x, a, b)


def entropy(a: jax.Array, b: jax.Array) -> jax.Array:
    """Differential entropy, at most 0: the uniform distribution's.

    In float32 right to 1e-5 for shapes up to about 30; its terms grow with the shapes and cancel.
    """
    both = digamma(a + b)
    return betaln(a, b) - (a - 1) * (digamma(a) - both) - (b - 1) * (digamma(b) - both)


def mean(a: jax.Array, b: jax.Array) -> jax.Array:
    """The expectation.

    Example:
      >>> float(mean(2.0, 6.0))
      0.25
    """
    return a / (a + b)


def sample(key: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """One draw for every pair of shapes, in their shape and dtype."""
    return jax.random.beta(key, a, b, a.shape, a.dtype)
