"""Divergences between next-token distributions, in nats.

All take logits or log-probabilities (log_probs) of shape [..., V]: teacher_logits are those of q,
student_logits those of p, over one vocabulary [V].

Logits may be minus infinity, as those of masked or padded ids are. A term of probability 0 is 0;
where one distribution has mass that the other has none of, its KL to that one is infinite.

Conventions follow GKD (arXiv 2306.13649): beta = 0 and 1 of the generalized Jensen-Shannon
divergence stand for forward and reverse KL.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from models.checks import Share, one_of, require

DIVERGENCES = ("reverse_kl", "forward_kl", "jsd")
TOP_K_OF = ("student", "teacher", "union")
Divergence = Annotated[str, one_of(*DIVERGENCES)]


def times_log(a: jax.Array, log: jax.Array) -> jax.Array:
    """a log [...], where a term of probability 0 is 0 whatever its logarithm is.

    The logarithm is replaced rather than the product, so that no gradient is 0 times infinity.
    """
    return a * jnp.where(a > 0, log, 0.0)


def log_sum(log_probs: jax.Array, counted: jax.Array) -> jax.Array:
    """Log-probability [...] of the counted tokens of [..., V] together; minus infinity for none.

    Summing what is left, rather than 1 - sum(the others), neither cancels nor turns negative.
    """
    counted = counted & (log_probs > -jnp.inf)
    some = jnp.any(counted, axis=-1, keepdims=True)
    # Where there is none, the sum of zeros stands in: its gradient is finite, and is not used.
    masked = jnp.where(some, jnp.where(counted, log_probs, -jnp.inf), 0.0)
    return jnp.where(some[..., 0], jax.nn.logsumexp(masked, axis=-1), -jnp.inf)


@jax.custom_jvp
def _kl(log_a: jax.Array, log_b: jax.Array) -> jax.Array:
    return times_log(jnp.exp(log_a), log_a - log_b)


@_kl.defjvp
def _kl_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # As it would be found without the masking: a select on the way back changes how products and
    # sums round.
    (log_a, log_b), (by_a, by_b) = primals, tangents
    a = jnp.exp(log_a)
    log = jnp.where(a > 0, log_a - log_b, 0.0)
    return a * log, (by_a * a) * log + a * (by_a - by_b)


def resolve(name: str, jsd_beta: float = 0.5) -> str:
    """The divergence's name, where the ends of JSD are the two KLs.

    Raises:
      ValueError: an unknown name, or beta outside [0, 1].
    """
    require("divergence", name, Divergence)
    if name != "jsd":
        return name
    require("jsd_beta", jsd_beta, Share)
    return {0.0: "forward_kl", 1.0: "reverse_kl"}.get(jsd_beta, name)


def _summands(name: str, log_q: jax.Array, log_p: jax.Array, jsd_beta: float) -> jax.Array:
    name = resolve(name, jsd_beta)
    if name == "reverse_kl":
        return _kl(log_p, log_q)
    if name == "forward_kl":
        return _kl(log_q, log_p)
    # What neither holds is 0 in both terms; its logarithm must only be finite.
    some = (log_q > -jnp.inf) | (log_p > -jnp.inf)
    a, b = (jnp.where(some, x, 0.0) for x in (log_q, log_p))
    log_m = jnp.logaddexp(a + jnp.log(jsd_beta), b + jnp.log1p(-jsd_beta))
    return jsd_beta * _kl(log_q, log_m) + (1 - jsd_beta) * _kl(log_p, log_m)


def forward_kl(teacher_logits: jax.Array, student_logits: jax.Array) -> jax.Array:
    """KL(q, p) [...]: covers the teacher's modes.

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
      >>> print(f"{forward_kl(teacher, student):.3f} nats")
      0.511 nats
    """
    return divergence("forward_kl", teacher_logits, student_logits)


def reverse_kl(teacher_logits: jax.Array, student_logits: jax.Array) -> jax.Array:
    """KL(p, q) [...]: seeks a mode of the teacher's.

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
      >>> print(f"{reverse_kl(teacher, student):.3f} nats")
      0.368 nats
    """
    return divergence("reverse_kl", teacher_logits, student_logits)


def jsd(teacher_logits: jax.Array, student_logits: jax.Array, beta: float = 0.5) -> jax.Array:
    """beta KL(q, m) + (1 - beta) KL(p, m) [...] with m = beta q + (1 - beta) p.

    Raises:
      ValueError: beta outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
      >>> print(f"{jsd(teacher, student):.3f} nats")
      0.102 nats
    """
    return divergence("jsd", teacher_logits, student_logits, beta)


def divergence(
    name: str, teacher_logits: jax.Array, student_logits: jax.Array, jsd_beta: float = 0.5
) -> jax.Array:
    """The divergence called `name` (one of `DIVERGENCES`) [...].

    Raises:
      ValueError: an unknown name.
    """
    return jnp.sum(summands(name, teacher_logits, student_logits, jsd_beta), axis=-1)


def summands(
    name: str, teacher_logits: jax.Array, student_logits: jax.Array, jsd_beta: float = 0.5
) -> jax.Array:
    """What every token of the vocabulary adds to the divergence called `name` [..., V].

    Raises:
      ValueError: an unknown name.
    """
    log_q, log_p = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(student_logits)
    return _summands(name, log_q, log_p, jsd_beta)


def top_k_divergence(
    name: str,
    teacher_logits: jax.Array,
    student_logits: jax.Array,
    k: int,
    top_k_of: str = "student",
    jsd_beta: float = 0.5,
) -> jax.Array:
    """The divergence [...] of the most likely tokens and one bucket for all others.

    The tail bucket keeps both distributions whole: what comes out is a divergence of their
    coarse-grained versions, hence never negative and at most the full one (data processing
    inequality), which `k >= V` equals.

    Args:
      k: tokens kept of each set.
      top_k_of: whose `k` most likely tokens are kept: `student`, `teacher` or the `union` of both.

    Raises:
      ValueError: an unknown name or set.

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.log(jnp.array([0.5, 0.3, 0.1, 0.1]))
      >>> student = jnp.log(jnp.array([0.9, 0.05, 0.03, 0.02]))
      >>> for k in (1, 2, 4):
      ...     print(f"{k}: {top_k_divergence('reverse_kl', teacher, student, k):.3f} nats")
      1: 0.368 nats
      2: 0.370 nats
      4: 0.371 nats
    """
    log_q, log_p = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(student_logits)
    k = min(k, log_p.shape[-1])
    sources = {"student": (log_p,), "teacher": (log_q,), "union": (log_p, log_q)}
    if top_k_of not in sources:
        raise ValueError(f"Unknown set {top_k_of!r}; choose one of {TOP_K_OF}.")

    kept = jnp.zeros(log_p.shape, bool)
    ids, first_time = [], []
    for log_probs in sources[top_k_of]:
        top = jax.lax.top_k(log_probs, k)[1]
        first_time.append(~jnp.take_along_axis(kept, top, axis=-1))  # a union counts tokens once
        kept = jnp.put_along_axis(kept, top, True, axis=-1, inplace=False)
        ids.append(top)
    ids_K, first_time_K = jnp.concatenate(ids, -1), jnp.concatenate(first_time, -1)

    def buckets(log_probs: jax.Array) -> jax.Array:
        rest = log_sum(log_probs, ~kept)[..., None]
        top = jnp.take_along_axis(log_probs, ids_K, axis=-1)
        return jnp.concatenate([jnp.where(first_time_K, top, -jnp.inf), rest], axis=-1)

    return jnp.sum(_summands(name, buckets(log_q), buckets(log_p), jsd_beta), axis=-1)


def top_k_entropy(logits: jax.Array, k: int) -> jax.Array:
    """Entropy [...] of the `min(k, V)` most likely tokens, renormalized to 1 (MOTAB, App. D.5).

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{top_k_entropy(jnp.zeros(100), k=20):.3f} nats, log 20 = {jnp.log(20):.3f}")
      2.996 nats, log 20 = 2.996
    """
    top = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0]
    log_p = jax.nn.log_softmax(top)
    return -jnp.sum(times_log(jnp.exp(log_p), log_p), axis=-1)
