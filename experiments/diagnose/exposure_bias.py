"""One model on its own text and on another's: what the diagnosis computes on the device."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import log_probs, map_logits, readout
from distill.losses.divergence import forward_kl
from models.decoding.decode import put


class ContextComparison(flax.struct.PyTreeNode):
    """What one model says of two texts on the same prompt, all [B, N], in nats, at temperature 1.

    Attributes:
      own_log_probs, other_log_probs: log p(token) of each text's tokens. Mean something where that
        text has a token.
      kl: KL(p(. | own text before t) || p(. | other text before t)): at t = 0, where both contexts
        are the prompt, it is 0. Means something where both texts have a token.
    """

    own_log_probs: jax.Array
    other_log_probs: jax.Array
    kl: jax.Array


def compare_contexts(
    params: models.parameters.Params,
    config: models.ModelConfig,
    prompts_BxP: jax.Array,
    prompt_lengths_B: jax.Array,
    own_BxN: jax.Array,
    other_BxN: jax.Array,
    vocab_size: int | None = None,
) -> ContextComparison:
    """Compares a model's next-token distributions along its own text and along another's.

    No mask is needed: what stands behind a text's end does not reach back. Memory is bounded: the
    positions go through the head in blocks.

    Args:
      prompts_BxP: right-padded, at least one token each.
      own_BxN, other_BxN: response tokens from the prompt's end on, padded with any valid id.
      vocab_size: distributions run over the ids below it; None: over all.
    """
    batch, length = own_BxN.shape
    vocab = min(vocab_size or config.vocab_size, config.vocab_size)
    texts = jnp.stack([own_BxN, other_BxN])
    # From the hidden state at the prompt's last token, the response's first is predicted.
    at_BxN = prompt_lengths_B[:, None] - 1 + jnp.arange(length)

    def before_each_token(text_BxN: jax.Array) -> jax.Array:
        tokens = jnp.pad(prompts_BxP, ((0, 0), (0, length)))
        tokens = put(tokens, text_BxN, prompt_lengths_B, jnp.full(batch, length))
        hidden = models.forward_hidden(params, config, tokens)
        return jnp.take_along_axis(hidden, at_BxN[..., None], axis=1)

    def compare(own: jax.Array, other: jax.Array, tokens: tuple[jax.Array, jax.Array]) -> Any:
        own, other = own[..., :vocab], other[..., :vocab]
        return ContextComparison(
            own_log_probs=log_probs(own, tokens[0]),
            other_log_probs=log_probs(other, tokens[1]),
            kl=forward_kl(own, other),  # KL(first || second)
        )

    # One program runs over both texts, so that equal texts give equal bits and a KL of exactly 0.
    own, other = (readout(params, config, x) for x in jax.lax.map(before_each_token, texts))
    tokens = jnp.clip(texts, max=vocab - 1)
    return map_logits(compare, own, other, (tokens[0], tokens[1]))
