"""What pulls the student towards the teacher at a token: divergence, support and form."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from distill.losses.chunked import log_probs
from distill.losses.divergence import (
    TOP_K_OF,
    Divergence,
    divergence,
    resolve,
    top_k_divergence,
)
from distill.losses.estimators import ESTIMATORS, advantage, sampled_divergence
from models.checks import Count, Share, check, one_of

SUPPORTS = ("full", "top_k", "sampled")
FORMS = ("loss", "advantage")

# The estimator whose gradient, and not just whose value, is the divergence's.
_LOSS_ESTIMATOR = {"reverse_kl": "k2", "forward_kl": "k3"}


@dataclasses.dataclass(frozen=True)
class Signal:
    """A divergence of student p and teacher q, and how it becomes a gradient.

    Combinations whose gradient would be zero, or another divergence's, are refused.

    Attributes:
      divergence: `reverse_kl` KL(p, q), `forward_kl` KL(q, p), or `jsd`.
      jsd_beta: of `jsd`: beta KL(q, m) + (1 - beta) KL(p, m), m = beta q + (1 - beta) p; at 0 it
        stands for `forward_kl`, at 1 for `reverse_kl`.
      support: `full` vocabulary; `top_k` tokens and one bucket for all others, which bounds the
        full divergence from below; or the `sampled` token alone, which the student itself must
        have drawn at temperature 1 and unfiltered.
      top_k: tokens kept by `support = "top_k"`, of each set.
      top_k_of: whose most likely tokens those are: `student`, `teacher` or the `union` of both.
      form: `loss` is differentiated; `advantage` is detached and weighs grad log p(token) as in a
        policy gradient (`support = "sampled"` only).
      estimator: what a sampled loss differentiates: `k2` for the reverse KL, `k3` for the forward
        one; empty elsewhere. Token by token their gradients are those of the advantages, so that
        for the two KLs the form is a way of writing; the JSD has the advantage only.

    Example:
      >>> Signal(divergence="reverse_kl", support="top_k", top_k=4).top_k_of
      'student'
      >>> Signal(support="sampled", estimator="k1")
      Traceback (most recent call last):
          ...
      ValueError: signal.estimator='k1' as a loss: the gradient ... is zero in expectation...
    """

    divergence: Divergence = "reverse_kl"
    jsd_beta: Share = 0.5
    support: Annotated[str, one_of(*SUPPORTS)] = "full"
    top_k: Count = 32
    top_k_of: Annotated[str, one_of(*TOP_K_OF)] = "student"
    form: Annotated[str, one_of(*FORMS)] = "loss"
    estimator: Annotated[str, one_of("", *ESTIMATORS)] = ""

    def __post_init__(self):
        check(self, "signal")
        if self.form == "advantage" and self.support != "sampled":
            raise ValueError(
                f"signal.form='advantage' with signal.support={self.support!r}: a divergence of "
                "the whole position is the same for every token that could be drawn, and as an "
                "advantage it has zero gradient in expectation. "
                "Use signal.support='sampled', or signal.form='loss'."
            )
        if self.support == "sampled" and self.form == "loss":
            self._check_estimator()
        elif self.estimator:
            raise ValueError(
                f"signal.estimator={self.estimator!r} with signal.support={self.support!r} and "
                f"signal.form={self.form!r}: nothing reads it. Estimators belong to a sampled "
                "loss; full and top-k supports take the expectation exactly, and an advantage is "
                "given by the divergence. Leave it empty."
            )

    def _check_estimator(self):
        name = resolve(self.divergence, self.jsd_beta)
        if self.estimator == "k1":
            raise ValueError(
                "signal.estimator='k1' as a loss: the gradient of log p - log q at a sampled "
                "token is zero in expectation, because the teacher drops out. "
                "Use signal.form='advantage', or signal.estimator='k2'."
            )
        if name == "jsd":
            raise ValueError(
                f"signal.divergence='jsd' with signal.jsd_beta={self.jsd_beta} as a sampled loss: "
                "no estimator's gradient is the JSD's. Use signal.form='advantage'."
            )
        right = _LOSS_ESTIMATOR[name]
        if self.estimator != right:
            reason = {
                "": "a sampled loss needs an estimator",
                "k2": "k2's gradient is the reverse KL's",
                "k3": "k3 estimates the reverse KL, but its gradient is the forward KL's",
            }[self.estimator]
            raise ValueError(
                f"signal.estimator={self.estimator!r} with signal.divergence={self.divergence!r}: "
                f"{reason}. Use {right!r} for the {name.replace('_kl', ' KL')}."
            )


def token_divergence(
    signal: Signal,
    teacher_logits_BxTxV: jax.Array,
    student_logits_BxTxV: jax.Array,
    tokens_BxT: jax.Array,
    weights_BxT: jax.Array,
) -> jax.Array:
    """What each token adds to the loss [B, T], in nats, before it is weighted.

    Its value is the divergence at the position (of its buckets, for `top_k`), or an unbiased
    estimate of it, never negative, for `sampled`. Its gradient is the divergence's, or, for
    `sampled`, an unbiased estimate of that: value and gradient are then not each other's.

    Args:
      signal: which divergence, and how.
      teacher_logits_BxTxV, student_logits_BxTxV: over the same vocabulary. The caller detaches the
        teacher's.
      tokens_BxT: the token drawn at each position; read by `sampled` only.
      weights_BxT: tokens without a weight were perhaps not drawn from the student, so that ratios
        of probabilities there may overflow; `sampled` gives 0 for them.
    """
    s, both = signal, (teacher_logits_BxTxV, student_logits_BxTxV)
    if s.support == "full":
        return divergence(s.divergence, *both, s.jsd_beta)
    if s.support == "top_k":
        return top_k_divergence(s.divergence, *both, s.top_k, s.top_k_of, s.jsd_beta)
    log_q, log_p = (log_probs(logits_BxTxV, tokens_BxT) for logits_BxTxV in both)
    return sampled_token_divergence(s, log_q, log_p, weights_BxT)


def sampled_token_divergence(
    signal: Signal, log_q_BxT: jax.Array, log_p_BxT: jax.Array, weights_BxT: jax.Array
) -> jax.Array:
    """`token_divergence` for `support = "sampled"`, of the drawn token's log-probabilities."""
    s = signal
    # Masking the logarithms themselves keeps infinities out of the gradient, too.
    drawn_BxT = weights_BxT != 0
    log_ratio = jnp.where(drawn_BxT, log_q_BxT - log_p_BxT, 0.0)
    log_p = jnp.where(drawn_BxT, log_p_BxT, 0.0)
    # Token by token, k2 and k3 have the gradients of the advantages, which d = -inf leaves finite
    # where the divergence is.
    pull = advantage(s.divergence, log_ratio, s.jsd_beta)
    gradient_alone = -jnp.where(jnp.isfinite(pull), pull, 0.0) * (
        log_p - jax.lax.stop_gradient(log_p)
    )
    value = sampled_divergence(s.divergence, log_ratio, s.jsd_beta)
    return jax.lax.stop_gradient(value) + gradient_alone
