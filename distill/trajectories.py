"""What a rollout hands to a loss."""

from __future__ import annotations

import enum

import flax.struct
import jax
import jax.numpy as jnp


class Source(enum.IntEnum):
    """Who wrote a token."""

    PADDING = 0
    PROMPT = 1
    STUDENT = 2
    FLAWED = 3  # the student's, from the root step to the breaching one
    REVISION = 4  # inserted by the method, such as "However,"
    TEACHER = 5


class TeacherScores(flax.struct.PyTreeNode):
    """What a teacher said of fixed text: log-probabilities in nats, over the ids both models have.

    They are taken at temperature 1. As weights do, an entry belongs to the token being predicted:
    the one at t is predicted from those before it, and nothing is said of the first.

    Attributes:
      sampled_BxT: of the token at t.
      ids_BxTxK: the most likely tokens, the likeliest first.
      log_probs_BxTxK: theirs.
      tail_BxT: of all other tokens together.
    """

    sampled_BxT: jax.Array
    ids_BxTxK: jax.Array
    log_probs_BxTxK: jax.Array
    tail_BxT: jax.Array


class Trajectories(flax.struct.PyTreeNode):
    """Rows of prompt and response, right-padded; all [B, T].

    Weights belong to the token being predicted: the one at t is predicted from those before it.

    Attributes:
      tokens_BxT: token ids, 0 in padding.
      source_BxT: a `Source` per token.
      likelihood_weights_BxT: weight of -log p(token) in the loss.
      divergence_weights_BxT: weight of the student's divergence to the teacher at the position.
      positions_BxT: rotary positions.
      segment_ids_BxT: 1 and up; 0 in padding.
      teacher_scores: kept ones, which spare running the teacher; None where there are none.
    """

    tokens_BxT: jax.Array
    source_BxT: jax.Array
    likelihood_weights_BxT: jax.Array
    divergence_weights_BxT: jax.Array
    positions_BxT: jax.Array
    segment_ids_BxT: jax.Array
    teacher_scores: TeacherScores | None = None

    @property
    def inputs(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Tokens, positions and segment ids [B, T - 1] of what predicts the second token and on."""
        return self.tokens_BxT[:, :-1], self.positions_BxT[:, :-1], self.segment_ids_BxT[:, :-1]

    @property
    def idle_rows(self) -> jax.Array:
        """How many rows [] hold tokens of which none trains: empty, dropped or unrewarded."""
        trains_B = jnp.any(
            (self.likelihood_weights_BxT != 0) | (self.divergence_weights_BxT != 0), axis=1
        )
        return jnp.sum(jnp.any(self.segment_ids_BxT != 0, axis=1) & ~trains_B)
