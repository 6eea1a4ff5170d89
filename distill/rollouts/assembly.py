"""From written text to training rows."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from distill.trajectories import Source, Trajectories
from models.checks import one_of, require

Train = Annotated[str, one_of("likelihood", "divergence", "none")]


def assemble(
    text_BxT: jax.Array,
    writers_BxT: jax.Array,
    prompt_lengths_B: jax.Array,
    lengths_B: jax.Array,
    train: Train,
) -> Trajectories:
    """Rows whose response tokens all train alike.

    Args:
      text_BxT: prompt and response, by position; what lies beyond `lengths_B` is dropped.
      writers_BxT: `Source` of the response tokens; other entries don't matter.
      prompt_lengths_B, lengths_B: lengths without and with the response.
      train: what carries weight 1 on the response tokens, the end of sequence included:
        `likelihood` or `divergence`; with `none` nothing does.
    """
    require("train", train, Train)
    at = jnp.broadcast_to(jnp.arange(text_BxT.shape[1]), text_BxT.shape)
    present = at < lengths_B[:, None]
    response = present & (at >= prompt_lengths_B[:, None])
    source = jnp.where(response, writers_BxT, Source.PROMPT)
    source = jnp.where(present, source, Source.PADDING)
    return Trajectories(
        tokens_BxT=jnp.where(present, text_BxT, 0).astype(jnp.int32),
        source_BxT=source.astype(jnp.int32),
        likelihood_weights_BxT=(response & (train == "likelihood")).astype(jnp.float32),
        divergence_weights_BxT=(response & (train == "divergence")).astype(jnp.float32),
        positions_BxT=at.astype(jnp.int32),
        segment_ids_BxT=present.astype(jnp.int32),
    )
