"""How likely a model finds the references: the grounding term of ATESD's reward, and its probe."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import models
from atesd.exposure import References, reference_responses
from distill.losses.log_probs import token_log_probs
from models.parameters import Params


def reference_log_probs(
    params: Params,
    config: models.ModelConfig,
    contexts_BxC: jax.Array,
    lengths_B: jax.Array,
    references: References,
    eos_id: int,
) -> jax.Array:
    """Mean log-probability of each reference's tokens and EOS behind a context [B], in nats.

    Behind the exposed contexts of the teacher this is q of Eq. 8, behind prompts the student's
    negative NLL.

    Args:
      contexts_BxC, lengths_B: contexts, right-padded, and their lengths in tokens.
    """
    rows = reference_responses(contexts_BxC, lengths_B, references, eos_id)
    hidden = models.forward_hidden(params, config, *rows.inputs)
    log_probs = token_log_probs(params, config, hidden, rows.tokens_BxT[:, 1:])
    weights = rows.likelihood_weights_BxT[:, 1:]
    return jnp.sum(weights * log_probs, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
