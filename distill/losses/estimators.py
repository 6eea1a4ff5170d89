"""Divergences and their gradients from the sampled token alone, in nats.

Everything is a function of log_ratio d = log q(y) - log p(y) [...] at a token y drawn from the
student p itself (temperature 1, unfiltered); q is the teacher and u = exp(d). An f-divergence is D
= E_p[f(u)]; its gradient is -E_p[A grad log p] with the advantage A = u f'(u) - f(u), to which any
constant may be added. The three divergences are

  reverse KL  f = u - 1 - log u              A = log u
  forward KL  f = u log u - u + 1            A = u - 1
  JSD_beta    f = beta u log(u/w) - (1 - beta) log w, w = 1 - beta + beta u
                                             A = (1 - beta) log w

where the first two carry a multiple of u - 1, which has mean 0, so that every f >= 0. A token that
the teacher has masked has d = -inf: its reverse KL is infinite, the others' summands and advantages
are not. k1, k2, k3 are Schulman's (joschu.net/blog/kl-approx.html), JSD_beta is GKD's (arXiv
2306.13649, Eq. 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from distill.losses.divergence import resolve, times_log

ESTIMATORS = ("k1", "k2", "k3")


def k1(log_ratio: jax.Array) -> jax.Array:
    """-d [...]: the reverse KL, unbiased; its gradient has mean 0, so it is no loss."""
    return -log_ratio


def k2(log_ratio: jax.Array) -> jax.Array:
    """d^2 / 2 [...]: the reverse KL, biased; its gradient is the reverse KL's, unbiased."""
    return jnp.square(log_ratio) / 2


def k3(log_ratio: jax.Array) -> jax.Array:
    """u - 1 - d [...]: the reverse KL, unbiased; its gradient is the *forward* KL's, unbiased."""
    return jnp.expm1(log_ratio) - log_ratio


def sampled_divergence(name: str, log_ratio: jax.Array, jsd_beta: float = 0.5) -> jax.Array:
    """f(u) [...], an unbiased estimate of the divergence, never negative.

    Raises:
      ValueError: an unknown name, or beta outside [0, 1].
    """
    name = resolve(name, jsd_beta)
    if name == "reverse_kl":
        return k3(log_ratio)
    if name == "forward_kl":
        return times_log(jnp.exp(log_ratio), log_ratio) - jnp.expm1(log_ratio)
    log_w = _log_mixture(log_ratio, jsd_beta)
    return jsd_beta * times_log(jnp.exp(log_ratio), log_ratio - log_w) - (1 - jsd_beta) * log_w


def advantage(name: str, log_ratio: jax.Array, jsd_beta: float = 0.5) -> jax.Array:
    """A [...] whose policy gradient E_p[A grad log p] descends the divergence; detached.

    Raises:
      ValueError: an unknown name, or beta outside [0, 1].
    """
    name = resolve(name, jsd_beta)
    d = jax.lax.stop_gradient(log_ratio)
    if name == "reverse_kl":
        return d
    if name == "forward_kl":
        return jnp.expm1(d)
    return (1 - jsd_beta) * _log_mixture(d, jsd_beta)


def _log_mixture(log_ratio: jax.Array, beta: float) -> jax.Array:
    """log(m / p) = log(1 - beta + beta u), without forming u."""
    return jnp.logaddexp(jnp.log1p(-beta), jnp.log(beta) + log_ratio)
