"""The loss of a batch of trajectories: sums and counts, divided once."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.signal import Signal, token_divergence
from distill.trajectories import Trajectories
from models.parameters import Params


class LossSums(flax.struct.PyTreeNode):
    """Sums over tokens, in nats, and the counts they are divided by.

    `(likelihood + divergence) / tokens` is the loss: one mean over all tokens that train, whatever
    rows, micro-batches or devices they lie on.
    """

    likelihood: jax.Array
    likelihood_tokens: jax.Array
    divergence: jax.Array
    divergence_tokens: jax.Array

    @property
    def tokens(self) -> jax.Array:
        """Weight of all tokens that train."""
        return self.likelihood_tokens + self.divergence_tokens

    @property
    def mean(self) -> jax.Array:
        """The loss, in nats per token; 0 where nothing trains."""
        return (self.likelihood + self.divergence) / jnp.maximum(self.tokens, 1.0)

    @property
    def metrics(self) -> dict[str, jax.Array]:
        """`likelihood` and `divergence`, in nats per token that trains for each."""
        return {
            "likelihood": self.likelihood / jnp.maximum(self.likelihood_tokens, 1.0),
            "divergence": self.divergence / jnp.maximum(self.divergence_tokens, 1.0),
        }


def trajectory_loss(
    student_params: Params,
    student_config: models.ModelConfig,
    trajectories: Trajectories,
    teacher_params: Params | None = None,
    teacher_config: models.ModelConfig | None = None,
    signal: Signal | None = None,
) -> LossSums:
    """-log p on tokens with a likelihood weight, `signal`'s divergence on those with a divergence's.

    The teacher sees the same tokens as the student and carries no gradient; without a `signal` it is
    not run at all. The heads may be padded to different widths: divergences run over the ids both
    have.

    Raises:
      ValueError: a signal without a teacher.
    """
    t = trajectories
    inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
    targets = t.tokens_BxT[:, 1:]
    likelihood_weights = t.likelihood_weights_BxT[:, 1:]
    divergence_weights = t.divergence_weights_BxT[:, 1:]

    student_logits = models.forward(student_params, student_config, *inputs)
    chosen = jnp.take_along_axis(student_logits, targets[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(student_logits, axis=-1) - chosen
    likelihood = jnp.sum(likelihood_weights * nll)
    total = jnp.zeros(())
    if signal is not None:
        if teacher_params is None or teacher_config is None:
            raise ValueError(f"A divergence ({signal.divergence!r}) needs a teacher.")
        teacher_logits = jax.lax.stop_gradient(
            models.forward(teacher_params, teacher_config, *inputs)
        )
        vocab = min(student_config.vocab_size, teacher_config.vocab_size)
        per_token = token_divergence(
            signal,
            teacher_logits[..., :vocab],
            student_logits[..., :vocab],
            jnp.clip(targets, max=vocab - 1),
            divergence_weights,
        )
        total = jnp.sum(divergence_weights * per_token)
    return LossSums(
        likelihood=likelihood,
        likelihood_tokens=jnp.sum(likelihood_weights),
        divergence=total,
        divergence_tokens=jnp.sum(divergence_weights) * (signal is not None),
    )
