"""What a teacher says of fixed trajectories, kept so that it need not be run again.

Of every position its most likely tokens and one bucket for all others are kept, and the token that
stands there: enough for `top_k` divergences over the teacher's own tokens and for `sampled` ones.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import log_probs, map_logits, predictions
from distill.losses.divergence import divergence, log_sum
from distill.losses.signal import Signal, sampled_token_divergence
from distill.trajectories import TeacherScores, Trajectories
from models.parameters import Params


def check_cacheable(signal: Signal) -> None:
    """Refuses a divergence that kept scores do not hold.

    Raises:
      ValueError: it needs the whole vocabulary, or tokens that depend on the student.
    """
    if signal.support == "full":
        raise ValueError(
            "signal.support='full' with kept teacher scores: they hold the likeliest tokens alone. "
            "Use signal.support='top_k' with signal.top_k_of='teacher'."
        )
    if signal.support == "top_k" and signal.top_k_of != "teacher":
        raise ValueError(
            f"signal.top_k_of={signal.top_k_of!r} with kept teacher scores: the student's "
            "likeliest tokens change as it learns. Use 'teacher'."
        )


def score_trajectories(
    params: Params,
    config: models.ModelConfig,
    trajectories: Trajectories,
    top_k: int,
    vocab_size: int,
) -> TeacherScores:
    """Runs the teacher over fixed text; no array is [B, T, V].

    Args:
      trajectories: rows [B, T], of which the text is read.
      top_k: tokens kept of a position; fewer where the vocabulary has fewer.
      vocab_size: scores run over the ids below it: those that both models have.
    """
    k = min(top_k, vocab_size)

    def score(logits: jax.Array, _: Any, targets: jax.Array) -> TeacherScores:
        logits = logits[..., :vocab_size]
        log_q = jax.nn.log_softmax(logits)
        top, ids = jax.lax.top_k(log_q, k)
        return TeacherScores(
            sampled_BxT=log_probs(logits, jnp.clip(targets, max=vocab_size - 1)),
            ids_BxTxK=ids.astype(jnp.int32),
            log_probs_BxTxK=top,
            tail_BxT=_rest(log_q, ids),
        )

    read = predictions(params, config, trajectories)
    scores = map_logits(score, read, None, trajectories.tokens_BxT[:, 1:])
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0)) + ((0, 0),) * (x.ndim - 2)), scores)


def kept_divergence(
    signal: Signal,
    scores: TeacherScores,
    student_logits_BxTxV: jax.Array,
    tokens_BxT: jax.Array,
    weights_BxT: jax.Array,
) -> jax.Array:
    """As `distill.losses.signal.token_divergence` [B, T], with kept scores in the teacher's place.

    Args:
      scores: of the same positions as the logits, with at least `signal.top_k` tokens.
      student_logits_BxTxV: over the ids that both models have.

    Raises:
      ValueError: scores do not hold this divergence, or fewer tokens than it asks for.
    """
    check_cacheable(signal)
    if signal.support == "sampled":
        log_p = log_probs(student_logits_BxTxV, tokens_BxT)
        return sampled_token_divergence(signal, scores.sampled_BxT, log_p, weights_BxT)
    k = min(signal.top_k, student_logits_BxTxV.shape[-1])
    if scores.ids_BxTxK.shape[-1] != k:
        raise ValueError(
            f"signal.top_k={signal.top_k}, but the kept teacher scores hold "
            f"{scores.ids_BxTxK.shape[-1]} tokens of a position. Score the trajectories again."
        )
    log_p = jax.nn.log_softmax(student_logits_BxTxV)
    top = jnp.take_along_axis(log_p, scores.ids_BxTxK, axis=-1)
    student = jnp.concatenate([top, _rest(log_p, scores.ids_BxTxK)[..., None]], axis=-1)
    teacher = jnp.concatenate([scores.log_probs_BxTxK, scores.tail_BxT[..., None]], axis=-1)
    return divergence(signal.divergence, teacher, student, signal.jsd_beta)


def _rest(log_probs_BxTxV: jax.Array, ids_BxTxK: jax.Array) -> jax.Array:
    """Log-probability [B, T] of all tokens but these; minus infinity where there are none."""
    others = jnp.ones(log_probs_BxTxV.shape, bool)
    others = jnp.put_along_axis(others, ids_BxTxK, False, axis=-1, inplace=False)
    return log_sum(log_probs_BxTxV, others)
