"""Divergences between next-token distributions, in nats. Teacher q, student p, logits [..., V].

Conventions follow GKD (arXiv 2306.13649): beta = 0 and 1 of the generalised Jensen-Shannon
divergence stand for forward and reverse KL.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

DIVERGENCES = ("reverse_kl", "forward_kl", "jsd")


def _kl(log_a: jax.Array, log_b: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(log_a) * (log_a - log_b), axis=-1)


def forward_kl(teacher_logits: jax.Array, student_logits: jax.Array) -> jax.Array:
    """KL(q, p) [...]: covers the teacher's modes."""
    return _kl(jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(student_logits))


def reverse_kl(teacher_logits: jax.Array, student_logits: jax.Array) -> jax.Array:
    """KL(p, q) [...]: seeks a mode of the teacher's."""
    return _kl(jax.nn.log_softmax(student_logits), jax.nn.log_softmax(teacher_logits))


def jsd(teacher_logits: jax.Array, student_logits: jax.Array, beta: float = 0.5) -> jax.Array:
    """beta KL(q, m) + (1 - beta) KL(p, m) [...] with m = beta q + (1 - beta) p.

    Raises:
      ValueError: beta outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta} must lie in [0, 1].")
    if beta == 0:
        return forward_kl(teacher_logits, student_logits)
    if beta == 1:
        return reverse_kl(teacher_logits, student_logits)
    log_q, log_p = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(student_logits)
    log_m = jnp.logaddexp(log_q + jnp.log(beta), log_p + jnp.log1p(-beta))
    return beta * _kl(log_q, log_m) + (1 - beta) * _kl(log_p, log_m)


def divergence(
    name: str, teacher_logits: jax.Array, student_logits: jax.Array, jsd_beta: float = 0.5
) -> jax.Array:
    """The divergence called `name` (one of `DIVERGENCES`) [...].

    Raises:
      ValueError: an unknown name.
    """
    if name == "reverse_kl":
        return reverse_kl(teacher_logits, student_logits)
    if name == "forward_kl":
        return forward_kl(teacher_logits, student_logits)
    if name == "jsd":
        return jsd(teacher_logits, student_logits, jsd_beta)
    raise ValueError(f"Unknown divergence {name!r}; choose one of {DIVERGENCES}.")


def top_k_entropy(logits: jax.Array, k: int) -> jax.Array:
    """Entropy [...] of the `min(k, V)` most likely tokens, renormalised to 1 (MOTAB, App. D.5)."""
    top = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0]
    log_p = jax.nn.log_softmax(top)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
