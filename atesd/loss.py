"""The distillation loss of OPSD and ATESD: student and teacher on one text, behind two contexts.

Per-sequence means over response tokens, averaged over sequences (ATESD, arXiv 2605.11458). The
logits of all tokens never exist at once (`distill.losses.chunked`).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from atesd.exposure import References, expose
from distill.losses.chunked import Readout, log_probs, map_logits, readout, weighted_sum
from distill.losses.context import gather, teacher_view
from distill.losses.divergence import Divergence, forward_kl, summands
from distill.train.update import rows_of_parts
from distill.trajectories import Trajectories
from models.checks import Share, above, check, one_of
from models.parameters import Params

CLIPS = ("none", "summand", "token")


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What pulls the student towards the exposed teacher. The defaults are OPSD's, unclipped.

    Attributes:
      divergence: `forward_kl` KL(teacher, student), `reverse_kl` or `jsd`, over the full
        vocabulary.
      jsd_beta: of `jsd`, as in `distill.losses.signal.Signal`.
      temperature: both models' logits are divided by it.
      clip: `none`; `summand`, every vocabulary entry's summand is capped from above before they are
        summed, as in OPSD's code, so that the loss may be negative; or `token`, their sum is.
        What is capped has no gradient of its own.
      clip_at: the cap, in nats; OPSD has .05, and .06 for its largest model.
      difficulty: what sorts a batch into the controller's groups, where there are several:
        `confidence`, the student's low mean probability of the tokens it wrote; or
        `reference_length`, the reference's many tokens of reasoning.
    """

    divergence: Divergence = "forward_kl"
    jsd_beta: Share = 0.5
    temperature: Annotated[float, above(0)] = 1.0
    clip: Annotated[str, one_of(*CLIPS)] = "none"
    clip_at: Annotated[float, above(0)] = 0.05
    difficulty: Annotated[str, one_of("confidence", "reference_length")] = "confidence"

    def __post_init__(self):
        check(self, "loss")


class RowScores(flax.struct.PyTreeNode):
    """Means over the response tokens of every row [B], in nats; 0 where a row has none.

    They are the sums of a batch or of its part: see `distill.train.update.PartSums`.

    Attributes:
      loss: [], mean of `loss_B` over the rows that have a response, 0 without any; of a part of a
        batch its share of that mean. It alone has a gradient.
      loss_B: the divergence, clipped.
      mismatch_B: M of Eq. 4, KL(teacher, student), unclipped and at temperature 1.
      clipped_B: share of tokens at which something was capped.
      disagreement_B: share of tokens at which the two most likely tokens differ.
      confidence_B: student's probability of the tokens that were drawn.
      tokens_B: response tokens.
      group_B: int32, group of the row, by difficulty: 0 the easiest.
      exposure_B: a.
    """

    loss: jax.Array
    loss_B: jax.Array
    mismatch_B: jax.Array
    clipped_B: jax.Array
    disagreement_B: jax.Array
    confidence_B: jax.Array
    tokens_B: jax.Array
    group_B: jax.Array
    exposure_B: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The loss [], in nats per token; 0 where no row has a response."""
        return self.loss

    @property
    def total(self) -> jax.Array:
        """What is differentiated []."""
        return self.loss

    @property
    def count(self) -> jax.Array:
        """0: a part's loss is its share of the batch's already."""
        return jnp.zeros_like(self.loss)

    @property
    def tokens(self) -> jax.Array:
        """Response tokens []."""
        return jnp.sum(self.tokens_B)

    @property
    def metrics(self) -> dict[str, jax.Array]:
        """Means over the rows that have a response, and `empty_responses`, a count."""
        there_B = self.tokens_B > 0

        def mean(values_B: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(there_B, values_B, 0.0)) / jnp.maximum(jnp.sum(there_B), 1)

        return {
            "divergence": mean(self.loss_B),
            "mismatch": mean(self.mismatch_B),
            "clipped": mean(self.clipped_B),
            "disagreement": mean(self.disagreement_B),
            "confidence": mean(self.confidence_B),
            "empty_responses": jnp.sum(~there_B),
        }


def join(parts: RowScores) -> RowScores:
    """A batch's scores of those of its parts, stacked: their rows in the batch's order."""
    return jax.tree.map(lambda x: rows_of_parts(x) if x.ndim > 1 else jnp.sum(x), parts)


def clipped_divergence(
    settings: LossSettings, teacher_logits: jax.Array, student_logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of teacher_logits and student_logits [..., V]: the loss [...], and whether it was capped."""
    s = settings
    q, p = teacher_logits / s.temperature, student_logits / s.temperature
    each = summands(s.divergence, q, p, s.jsd_beta)
    if s.clip == "summand":
        loss = jnp.sum(jnp.minimum(each, s.clip_at), axis=-1)
        return loss, jnp.any(each > s.clip_at, axis=-1)
    loss = jnp.sum(each, axis=-1)
    if s.clip == "token":
        return jnp.minimum(loss, s.clip_at), loss > s.clip_at
    return loss, jnp.zeros(loss.shape, bool)


def groups_by_difficulty(difficulty_B: jax.Array, groups: int) -> jax.Array:
    """Group of every row [B], int32: the sorted batch in parts whose sizes differ by at most 1."""
    rows = difficulty_B.shape[0]
    ranks = jnp.argsort(jnp.argsort(difficulty_B, stable=True), stable=True)
    return (ranks * groups // rows).astype(jnp.int32)


def exposed_scores(
    student_params: Params,
    student_config: models.ModelConfig,
    teacher_params: Params,
    teacher_config: models.ModelConfig,
    trajectories: Trajectories,
    references: References,
    exposure_G: jax.Array,
    settings: LossSettings,
    max_response: int,
    rows: jax.Array | None = None,
    group_B: jax.Array | None = None,
) -> RowScores:
    """Scores the same responses under the student and under the teacher that sees references.

    The gradient runs through the student alone. A teacher with a wider head is read at the ids
    that both have.

    Args:
      trajectories: the student's [B, T]; tokens with a divergence weight count.
      references: of the same rows.
      exposure_G: a by group; [1] shows every teacher the same share.
      max_response: most tokens of a response, static.
      rows: [] rows that have a response in the whole batch, where these are a part of it: `loss` is
        then their share of the mean.
      group_B: of the rows, where they are a part of a batch; None: they are sorted here.
    """
    t = trajectories
    weights_BxT = _weights(t)
    tokens_B = jnp.sum(weights_BxT, axis=1)
    # The loss's weights: of a token in its row's mean, and of the row in the mean over rows.
    rows = jnp.maximum(jnp.sum(tokens_B > 0) if rows is None else rows, 1)
    means_BxT = weights_BxT * (1 / rows / jnp.maximum(tokens_B, 1.0))[:, None]
    vocab = min(student_config.vocab_size, teacher_config.vocab_size)
    targets_BxT = jnp.clip(t.tokens_BxT[:, 1:], max=vocab - 1)
    student = _read(student_params, student_config, t)
    groups = exposure_G.shape[0]
    if group_B is None:
        difficulty_B = tokens_B  # of one group, in which nothing is sorted
        if groups > 1:
            difficulty_B = _difficulty(student, t, references, settings, vocab)
        group_B = groups_by_difficulty(difficulty_B, groups)
    exposure_B = exposure_G[group_B]
    view = teacher_view(*expose(references, exposure_B), t, max_response)
    hidden = models.forward_hidden(
        teacher_params, teacher_config, view.tokens_BxS, view.positions_BxS, view.segment_ids_BxS
    )
    teacher = readout(teacher_params, teacher_config, gather(hidden, view)[:, :-1])

    def per_token(p: jax.Array, q: Any, targets: jax.Array) -> tuple[jax.Array, Any]:
        p, q = p[..., :vocab], q[..., :vocab]
        value, capped = clipped_divergence(settings, q, p)
        return value, {
            "loss_B": value,
            "mismatch_B": forward_kl(q, p),
            "clipped_B": capped.astype(jnp.float32),
            "disagreement_B": (jnp.argmax(q, -1) != jnp.argmax(p, -1)).astype(jnp.float32),
            "confidence_B": jnp.exp(log_probs(p, targets)),
        }

    loss, scores = weighted_sum(per_token, student, teacher, means_BxT, targets_BxT)
    means = {name: _row_means(x_BxT, weights_BxT) for name, x_BxT in scores.items()}
    return RowScores(loss, **means, tokens_B=tokens_B, group_B=group_B, exposure_B=exposure_B)


def row_difficulty(
    student_params: Params,
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    trajectories: Trajectories,
    references: References,
    settings: LossSettings,
) -> jax.Array:
    """What sorts rows into groups [B], more of it being harder; no gradient."""
    vocab = min(student_config.vocab_size, teacher_config.vocab_size)
    student = _read(student_params, student_config, trajectories)
    return _difficulty(student, trajectories, references, settings, vocab)


def _read(params: Params, config: models.ModelConfig, t: Trajectories) -> Readout:
    return readout(params, config, models.forward_hidden(params, config, *t.inputs))


def _difficulty(
    student: Readout, t: Trajectories, references: References, settings: LossSettings, vocab: int
) -> jax.Array:
    if settings.difficulty == "reference_length":
        return jnp.asarray(references.reasoning_lengths_B)
    # Before the teacher's contexts are known, and so in a pass of its own.
    drawn_BxT = map_logits(
        lambda p, _, x: jnp.exp(log_probs(p[..., :vocab], x)),
        jax.lax.stop_gradient(student),
        extras=jnp.clip(t.tokens_BxT[:, 1:], max=vocab - 1),
    )
    return -_row_means(drawn_BxT, _weights(t))


def _weights(t: Trajectories) -> jax.Array:
    """1 for the tokens that count [B, T - 1]."""
    return (t.divergence_weights_BxT[:, 1:] != 0).astype(jnp.float32)


def _row_means(values_BxT: jax.Array, weights_BxT: jax.Array) -> jax.Array:
    total_B = jnp.sum(jnp.where(weights_BxT != 0, values_BxT, 0.0), axis=1)
    return total_B / jnp.maximum(jnp.sum(weights_BxT, axis=1), 1.0)


def group_means(values_B: jax.Array, scores: RowScores, groups: int) -> jax.Array:
    """Means over the rows of each group that have a response [G]; NaN where a group has none."""
    member_GxB = (scores.group_B == jnp.arange(groups)[:, None]) & (scores.tokens_B > 0)
    return jnp.mean(jnp.broadcast_to(values_B, member_GxB.shape), axis=1, where=member_GxB)
