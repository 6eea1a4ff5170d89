"""What a teacher with a context of its own sees: the student's response behind other tokens."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.trajectories import Source, Trajectories
from models.decoding.decode import put


class TeacherView(flax.struct.PyTreeNode):
    """Rows for the teacher, right-padded, and the way back to the student's positions.

    S is the width of the contexts and the most tokens of a response together.

    Attributes:
      tokens_BxS: context and response, 0 in padding.
      positions_BxS: rotary positions, counted from the context's first token.
      segment_ids_BxS: 1, and 0 in padding.
      index_BxT: for the student's position t, whose logits predict token t + 1, the teacher's
        position that predicts the same token. Where token t + 1 is no response token, some
        position of the row.
    """

    tokens_BxS: jax.Array
    positions_BxS: jax.Array
    segment_ids_BxS: jax.Array
    index_BxT: jax.Array


def teacher_view(
    contexts_BxC: jax.Array,
    context_lengths_B: jax.Array,
    trajectories: Trajectories,
    max_response: int,
) -> TeacherView:
    """Copies every response behind its context.

    With the prompts as contexts and T = C + max_response this is the student's own layout.

    Args:
      contexts_BxC: what the teacher reads instead of the prompt; what lies beyond its length is
        dropped.
      context_lengths_B: in tokens, at least 1.
      trajectories: one prompt of at least one token and one response a row, [B, T].
      max_response: no response is longer; T less the width of the prompts, as rollouts are built.

    Raises:
      ValueError: `max_response` below 1, or so large that no response could have it.
    """
    batch, length = trajectories.tokens_BxT.shape
    if not 1 <= max_response < length:
        raise ValueError(
            f"max_response={max_response} must be at least 1 and less than the {length} tokens of "
            "the trajectories; give the rollout's response budget."
        )
    source = trajectories.source_BxT
    prompt_lengths_B = jnp.sum(source == Source.PROMPT, axis=1)
    response_lengths_B = jnp.sum(source > Source.PROMPT, axis=1)

    taken = jnp.minimum(prompt_lengths_B[:, None] + jnp.arange(max_response), length - 1)
    responses = jnp.take_along_axis(trajectories.tokens_BxT, taken, axis=1)
    width = contexts_BxC.shape[1] + max_response
    tokens = jnp.pad(contexts_BxC, ((0, 0), (0, max_response)))
    tokens = put(tokens, responses, context_lengths_B, response_lengths_B)
    at = jnp.broadcast_to(jnp.arange(width), (batch, width))
    present = at < (context_lengths_B + response_lengths_B)[:, None]

    shift = context_lengths_B - prompt_lengths_B
    index = jnp.clip(jnp.arange(length) + shift[:, None], 0, width - 1)
    return TeacherView(
        tokens_BxS=jnp.where(present, tokens, 0).astype(jnp.int32),
        positions_BxS=at.astype(jnp.int32),
        segment_ids_BxS=present.astype(jnp.int32),
        index_BxT=index.astype(jnp.int32),
    )


def gather(values_BxS: jax.Array, view: TeacherView) -> jax.Array:
    """The teacher's values at the student's positions: [B, S, ...] to [B, T, ...].

    Exact wherever the next token of the student's row is a response token; elsewhere finite values
    that mean nothing.
    """
    rows = jnp.arange(values_BxS.shape[0])[:, None]
    return values_BxS[rows, view.index_BxT]
