"""What a teacher's forward pass says about every token of a student's text."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.divergence import forward_kl, jsd, reverse_kl, top_k_entropy

# Logits exist for a block of tokens at a time, at most this many numbers per model.
_BLOCK_ELEMENTS = 2**24


class TokenScores(flax.struct.PyTreeNode):
    """Per-token comparison of teacher and student, all [B, T], in nats, at temperature 1.

    Attributes:
      nll: -log q(token), q the teacher's next-token distribution.
      reverse_kl, forward_kl, jsd: divergences of the whole distributions at the position.
      entropy: the teacher's entropy over its most likely tokens, renormalised.
    """

    nll: jax.Array
    reverse_kl: jax.Array
    forward_kl: jax.Array
    jsd: jax.Array
    entropy: jax.Array


def score_tokens(
    student_params: models.parameters.Params,
    student_config: models.ModelConfig,
    student_hidden_BxTxD: jax.Array,
    teacher_params: models.parameters.Params,
    teacher_config: models.ModelConfig,
    teacher_hidden_BxTxE: jax.Array,
    tokens_BxT: jax.Array,
    entropy_top_k: int,
) -> TokenScores:
    """Scores each token from the hidden states it was predicted from.

    The heads may be padded to different widths: distributions run over the ids both have.
    Memory is bounded: tokens go through the heads in blocks.
    """
    vocab = min(student_config.vocab_size, teacher_config.vocab_size)
    batch, length = tokens_BxT.shape
    total = batch * length
    block = max(1, min(total, _BLOCK_ELEMENTS // vocab))

    def score(
        student_hidden: jax.Array, teacher_hidden: jax.Array, tokens: jax.Array
    ) -> TokenScores:
        p = models.logits(student_params, student_config, student_hidden)[..., :vocab]
        q = models.logits(teacher_params, teacher_config, teacher_hidden)[..., :vocab]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(q), tokens[:, None], axis=-1)[:, 0]
        return TokenScores(
            nll=-chosen,
            reverse_kl=reverse_kl(q, p),
            forward_kl=forward_kl(q, p),
            jsd=jsd(q, p),
            entropy=top_k_entropy(q, entropy_top_k),
        )

    flat = [x.reshape(total, -1) for x in (student_hidden_BxTxD, teacher_hidden_BxTxE)]
    flat.append(jnp.clip(tokens_BxT.reshape(total), max=vocab - 1))
    if block == total:
        scores = score(*flat)
    else:
        padding = -total % block
        blocks = [
            jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, block, *x.shape[1:])
            for x in flat
        ]
        scores = jax.lax.map(lambda args: score(*args), tuple(blocks))
        scores = jax.tree.map(lambda x: x.reshape(-1)[:total], scores)
    return jax.tree.map(lambda x: x.reshape(batch, length), scores)
