"""Log-probabilities of given tokens, without the logits of all of them at once."""

from __future__ import annotations

import jax

import models
from distill.losses.chunked import log_probs, map_logits, readout
from models.decoding.sampling import mask_padding


def token_log_probs(
    params: models.parameters.Params,
    config: models.ModelConfig,
    hidden_BxTxD: jax.Array,
    tokens_BxT: jax.Array,
    vocab_size: int | None = None,
) -> jax.Array:
    """log p(token) [B, T] in nats, at temperature 1, from the hidden states before each token.

    Differentiable: the logits are then formed a second time. Where what is made of the
    log-probabilities is known beforehand, `distill.losses.chunked.weighted_sum` spares that.

    Args:
      vocab_size: the distribution runs over the ids below it; None: over all.
    """
    return map_logits(
        lambda logits, _, tokens: log_probs(mask_padding(logits, vocab_size), tokens),
        readout(params, config, hidden_BxTxD),
        extras=tokens_BxT,
    )
