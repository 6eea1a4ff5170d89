"""The loss of a batch of trajectories: sums and counts, divided once. No array is [B, T, V]."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import log_probs, predictions, weighted_sum
from distill.losses.signal import Signal, token_divergence
from distill.losses.teacher_scores import kept_divergence
from distill.trajectories import Trajectories
from models.parameters import Params


class LossSums(flax.struct.PyTreeNode):
    """Sums over tokens, in nats, and the counts they are divided by.

    `total / tokens` is the loss: one mean over all tokens that train, whatever rows, micro-batches
    or devices they lie on.

    Attributes:
      total: `likelihood + divergence`: what is differentiated. The other sums have no gradient.
      idle_rows: rows that hold tokens of which none trains.
    """

    total: jax.Array
    likelihood: jax.Array
    likelihood_tokens: jax.Array
    divergence: jax.Array
    divergence_tokens: jax.Array
    idle_rows: jax.Array

    @property
    def tokens(self) -> jax.Array:
        """Weight of all tokens that train."""
        return self.likelihood_tokens + self.divergence_tokens

    @property
    def count(self) -> jax.Array:
        """What `total` is divided by: the tokens."""
        return self.tokens

    @property
    def mean(self) -> jax.Array:
        """The loss, in nats per token; 0 where nothing trains."""
        return self.total / jnp.maximum(self.count, 1.0)

    @property
    def metrics(self) -> dict[str, jax.Array]:
        """`likelihood` and `divergence`, in nats per token that trains for each; `idle_rows`."""
        return {
            "idle_rows": self.idle_rows,
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
    """-log p by likelihood weights, and `signal`'s divergence by divergence weights.

    The teacher sees the same tokens as the student and carries no gradient; without a `signal`, or
    with kept scores among the trajectories, it is not run at all. The heads may be padded to
    different widths: divergences run over the ids that both have, and the likelihood over the
    student's whole head.

    Raises:
      ValueError: a signal without a teacher.
    """
    t = trajectories
    extras: dict[str, Any] = {
        "targets": t.tokens_BxT[:, 1:],
        "likelihood": t.likelihood_weights_BxT[:, 1:],
        "divergence": t.divergence_weights_BxT[:, 1:],
    }

    student = predictions(student_params, student_config, t)
    teacher = None
    vocab = student_config.vocab_size
    trains = extras["likelihood"] != 0
    if signal is not None:
        if teacher_config is None or (teacher_params is None and t.teacher_scores is None):
            raise ValueError(f"A divergence ({signal.divergence!r}) needs a teacher.")
        vocab = min(vocab, teacher_config.vocab_size)
        if t.teacher_scores is not None:
            extras["scores"] = jax.tree.map(lambda x: x[:, 1:], t.teacher_scores)
        else:
            assert teacher_params is not None
            teacher = predictions(teacher_params, teacher_config, t)
        trains |= extras["divergence"] != 0

    def per_token(p: jax.Array, q: Any, x: dict[str, Any]) -> tuple[jax.Array, Any]:
        likelihood = x["likelihood"] * -log_probs(p, x["targets"])
        if signal is None:
            return likelihood, (likelihood, jnp.zeros_like(likelihood))
        student = p[..., :vocab], jnp.clip(x["targets"], max=vocab - 1), x["divergence"]
        if q is None:
            each = kept_divergence(signal, x["scores"], *student)
        else:
            each = token_divergence(signal, q[..., :vocab], *student)
        divergence = x["divergence"] * each
        return likelihood + divergence, (likelihood, divergence)

    total, parts = weighted_sum(per_token, student, teacher, trains.astype(jnp.float32), extras)
    likelihood, divergence = (jnp.sum(x) for x in parts)
    return LossSums(
        total=total,
        likelihood=likelihood,
        likelihood_tokens=jnp.sum(extras["likelihood"]),
        divergence=divergence,
        divergence_tokens=jnp.sum(extras["divergence"]) * (signal is not None),
        idle_rows=t.idle_rows,
    )
