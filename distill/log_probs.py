"""Log-probabilities of given tokens, without the logits of all of them at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import models
from models.sampling import mask_padding

# Logits exist for a block of tokens at a time, at most this many numbers.
_BLOCK_ELEMENTS = 2**24


def token_log_probs(
    params: models.parameters.Params,
    config: models.ModelConfig,
    hidden_BxTxD: jax.Array,
    tokens_BxT: jax.Array,
    vocab_size: int | None = None,
) -> jax.Array:
    """log p(token) [B, T] in nats, at temperature 1, from the hidden states before each token.

    Args:
      vocab_size: the distribution runs over the ids below it; None: over all.
    """
    batch, length = tokens_BxT.shape
    total = batch * length
    block = max(1, min(total, _BLOCK_ELEMENTS // config.vocab_size))

    def score(args: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden, tokens = args
        logits = mask_padding(models.logits(params, config, hidden), vocab_size)
        chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    hidden, tokens = hidden_BxTxD.reshape(total, -1), tokens_BxT.reshape(total)
    if block == total:
        return score((hidden, tokens)).reshape(batch, length)
    padding = -total % block
    blocks = (
        jnp.pad(hidden, ((0, padding), (0, 0))).reshape(-1, block, hidden.shape[1]),
        jnp.pad(tokens, (0, padding)).reshape(-1, block),
    )
    return jax.lax.map(score, blocks).reshape(-1)[:total].reshape(batch, length)
