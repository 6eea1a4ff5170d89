"""What a teacher's forward pass says about every token of a student's text."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.losses.chunked import Readout, log_probs, map_logits
from distill.losses.divergence import DIVERGENCES, divergence, top_k_entropy


class TokenScores(flax.struct.PyTreeNode):
    """Per-token comparison of teacher and student, all [B, T], in nats, at temperature 1.

    Attributes:
      nll: -log q(token), q the teacher's next-token distribution.
      reverse_kl, forward_kl, jsd: divergences of the whole distributions at the position.
      entropy: the teacher's entropy over its most likely tokens, renormalized.
    """

    nll: jax.Array
    reverse_kl: jax.Array
    forward_kl: jax.Array
    jsd: jax.Array
    entropy: jax.Array


def score_tokens(
    student: Readout, teacher: Readout, tokens_BxT: jax.Array, entropy_top_k: int
) -> TokenScores:
    """Scores each token from the hidden states it was predicted from.

    The heads may be padded to different widths: distributions run over the ids both have.
    Memory is bounded: tokens go through the heads in blocks.
    """
    vocab = min(student.config.vocab_size, teacher.config.vocab_size)

    def score(p: jax.Array, q: jax.Array, tokens: jax.Array) -> TokenScores:
        p, q = p[..., :vocab], q[..., :vocab]
        return TokenScores(
            nll=-log_probs(q, tokens),
            **{name: divergence(name, q, p) for name in DIVERGENCES},
            entropy=top_k_entropy(q, entropy_top_k),
        )

    return map_logits(score, student, teacher, jnp.clip(tokens_BxT, max=vocab - 1))
