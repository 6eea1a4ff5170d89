"""What a plan reads of every token, and what it says of it."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from family.responses import place, total

# An array, or None where nothing of a run reads it.
Entry = Any


class Tokens(flax.struct.PyTreeNode):
    """What is known of the tokens that train, all [B, T]; log-probabilities and entropies in nats.

    Only `log_p_BxT` is differentiated. What no plan of a run reads is None. Where a token has no
    weight, every entry is finite and means nothing.

    Attributes:
      weights_BxT: the mask m; 0 on prompts and padding.
      segment_ids_BxT: of the response that a token belongs to, within its row.
      log_p_BxT: of the token, by the student.
      log_b_BxT: by the weights that wrote it.
      log_q_BxT: by the teacher, in whatever context it reads.
      log_ref_BxT: by a third, frozen model.
      student_entropy_BxT, teacher_entropy_BxT: of the whole distributions at the position.
      kl_BxT: KL(p, q) of the whole distributions.
      advantage_BxT: A^, the response's reward relative to its group's.
      right_BxT: 1 where the response's answer is right, else 0.
      group_right_BxT: 1 where some response of the group is right.
      row_weight_BxT: of the response, made of all responses of its group.
      ends_BxT: 1 where the token ends a text, else 0.
      step: updates before this one [].
    """

    weights_BxT: jax.Array
    segment_ids_BxT: jax.Array
    log_p_BxT: jax.Array
    log_b_BxT: jax.Array
    log_q_BxT: Entry = None
    log_ref_BxT: Entry = None
    student_entropy_BxT: Entry = None
    teacher_entropy_BxT: Entry = None
    kl_BxT: Entry = None
    advantage_BxT: Entry = None
    right_BxT: Entry = None
    group_right_BxT: Entry = None
    row_weight_BxT: Entry = None
    ends_BxT: Entry = None
    step: Entry = None

    @property
    def gap_BxT(self) -> jax.Array:
        """d = log q - log p, of the token."""
        return self.log_q_BxT - self.log_p_BxT

    @property
    def log_ratio_BxT(self) -> jax.Array:
        """log r = log p - log b."""
        return self.log_p_BxT - self.log_b_BxT

    @property
    def fresh_BxT(self) -> jax.Array:
        """0, with the gradient of log p: a ratio of 1 whoever wrote the text."""
        return self.log_p_BxT - jax.lax.stop_gradient(self.log_p_BxT)

    @property
    def counted_BxT(self) -> jax.Array:
        """Whether a token trains."""
        return self.weights_BxT != 0

    @property
    def position_BxT(self) -> jax.Array:
        """Of the token among those of its response that train, from 0."""
        return place(self.counted_BxT, self.segment_ids_BxT)

    @property
    def length_BxT(self) -> jax.Array:
        """Tokens of its response that train."""
        return total(self.counted_BxT.astype(jnp.float32), self.segment_ids_BxT)


class Plan(flax.struct.PyTreeNode):
    """What a method does with every token, all [B, T]; None stands for zeros.

    The loss of a token is a (-log p) + w D - S(rho, A), S = min(rho A, clip(rho) A). Everything but
    log rho is detached, whatever it was made of.

    Attributes:
      likelihood_BxT: a, the weight of -log p.
      divergence_BxT: w, the weight of the divergence D that the method names.
      advantage_BxT: A.
      log_ratio_BxT: log rho, differentiable; its gradient in log p is the policy gradient's.
      limited_BxT: whether a bound of the method's own acted on the token; for the log.
      clips: whether rho is clipped.
    """

    likelihood_BxT: jax.Array | None = None
    divergence_BxT: jax.Array | None = None
    advantage_BxT: jax.Array | None = None
    log_ratio_BxT: jax.Array | None = None
    limited_BxT: jax.Array | None = None
    clips: bool = flax.struct.field(pytree_node=False, default=True)
