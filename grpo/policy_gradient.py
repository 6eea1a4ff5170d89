"""Group-relative policy gradients from a reward per response: GRPO, and DAPO's changes to its loss.

A response y of a group of G to one prompt has the advantage A = (R - mean R) / std R over the group
(GRPO, arXiv 2402.03300, section 4.1.2), and its tokens the loss (Eq. 3)

  -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight k3,    r = p(y_t) / p_old(y_t),

where p_old wrote the text: at temperature 1 and unfiltered. At r = 1 the gradient is that of the
advantage-weighted likelihood, -A grad log p. k3 is taken of the student p and a frozen reference q
on the tokens that p_old drew: its value estimates KL(p, q), but its gradient is that of KL(q, p),
the *forward* KL (`distill.losses.estimators`). That is GRPO as published, and is kept.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import log_probs, predictions, weighted_sum
from distill.losses.estimators import k3
from distill.losses.log_probs import token_log_probs
from distill.losses.surrogate import Advantage, clipped_surrogate
from distill.trajectories import Trajectories
from models.checks import Count, Share, at_least, check, one_of
from models.decoding.sampling import mask_padding
from models.parameters import Params


@dataclasses.dataclass(frozen=True)
class GrpoSettings:
    """A rollout and a loss with a verifiable reward.

    Attributes:
      clip_low, clip_high: the ratio leaves no gradient below 1 - clip_low where the advantage is
        negative, and above 1 + clip_high where it is positive. Idle where fresh weights write the
        text: the ratio is then 1.
      advantage: `std` divides by the group's standard deviation; `none` does not (Dr. GRPO, arXiv
        2503.20783).
      normalise: `sequence` is the mean over responses of the mean over their tokens, as GRPO was
        published; `token` one mean over all tokens (DAPO, arXiv 2503.14476).
      kl_weight: of the k3 penalty to the reference policy; 0 runs no reference.
      student_temperature: of the rollout; must be 1.
      max_total: most tokens of a response.
    """

    clip_low: Share = 0.2
    clip_high: Annotated[float, at_least(0)] = 0.2
    advantage: Advantage = "std"
    normalise: Annotated[str, one_of("sequence", "token")] = "sequence"
    kl_weight: Annotated[float, at_least(0)] = 0.0
    student_temperature: float = 1.0
    max_total: Count = 8192

    def __post_init__(self):
        check(self, "grpo")
        if self.student_temperature != 1:
            raise ValueError(
                f"grpo.student_temperature={self.student_temperature}: the tokens would be drawn "
                "from a tempered distribution, while the ratio and the gradient are those of the "
                "policy at temperature 1. Set it to 1.0."
            )


class SurrogateSums(flax.struct.PyTreeNode):
    """Sums over a batch, and the counts they are divided by, once.

    Attributes:
      total: `surrogate + kl_weight * kl`: what is differentiated.
      surrogate: sum of the clipped surrogate, of tokens or of the responses' means.
      kl: likewise of k3, in nats; None where there is no penalty.
      count: what both are divided by: weight of all tokens, or responses that have any.
      clipped: weight of the tokens whose ratio is clipped.
      tokens: weight of all tokens.
      idle_rows: responses without any.
    """

    total: jax.Array
    surrogate: jax.Array
    kl: jax.Array | None
    count: jax.Array
    clipped: jax.Array
    tokens: jax.Array
    idle_rows: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The loss; 0 where nothing trains."""
        return self.total / jnp.maximum(self.count, 1.0)

    @property
    def metrics(self) -> dict[str, jax.Array]:
        """`surrogate`; `clipped`, a share of tokens; `idle_rows`; `kl`, nats per token, if any."""
        count = jnp.maximum(self.count, 1.0)
        return {
            "surrogate": self.surrogate / count,
            "clipped": self.clipped / jnp.maximum(self.tokens, 1.0),
            "idle_rows": self.idle_rows,
            **({} if self.kl is None else {"kl": self.kl / count}),
        }


def surrogate_sums(
    settings: GrpoSettings,
    log_probs_BxT: jax.Array,
    old_log_probs_BxT: jax.Array,
    advantages_B: jax.Array,
    weights_BxT: jax.Array,
    reference_log_probs_BxT: jax.Array | None = None,
) -> SurrogateSums:
    """The loss of given log-probabilities; the reference's are read if there is a penalty."""
    w_BxT = weights_BxT
    each_BxT = _token_weights(settings, w_BxT)
    loss_BxT, (surrogate_BxT, kl_BxT, clipped_BxT) = _token_loss(
        settings, log_probs_BxT, old_log_probs_BxT, advantages_B, w_BxT, reference_log_probs_BxT
    )
    responses = jnp.sum(jnp.sum(w_BxT, axis=1) > 0)
    return SurrogateSums(
        total=jnp.sum(each_BxT * loss_BxT),
        surrogate=jnp.sum(each_BxT * surrogate_BxT),
        kl=None if kl_BxT is None else jnp.sum(each_BxT * kl_BxT),
        count=responses if settings.normalise == "sequence" else jnp.sum(w_BxT),
        clipped=jnp.sum(w_BxT * clipped_BxT),
        tokens=jnp.sum(w_BxT),
        idle_rows=w_BxT.shape[0] - responses,
    )


def _token_weights(settings: GrpoSettings, weights_BxT: jax.Array) -> jax.Array:
    """Of every token in the sums [B, T]."""
    if settings.normalise == "token":
        return weights_BxT
    tokens_Bx1 = jnp.sum(weights_BxT, axis=1, keepdims=True)
    return weights_BxT / jnp.where(tokens_Bx1 > 0, tokens_Bx1, 1.0)


def _token_loss(
    settings: GrpoSettings,
    log_probs_BxT: jax.Array,
    old_log_probs_BxT: jax.Array,
    advantages: jax.Array,
    weights_BxT: jax.Array,
    reference_log_probs_BxT: jax.Array | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None, jax.Array]]:
    """The loss of every token [B, T], and its parts: surrogate, k3, and whether it is clipped."""
    s, w_BxT = settings, weights_BxT
    surrogate_BxT, clipped_BxT = clipped_surrogate(
        log_probs_BxT, old_log_probs_BxT, advantages, w_BxT, s.clip_low, s.clip_high
    )
    if reference_log_probs_BxT is None:
        return surrogate_BxT, (surrogate_BxT, None, clipped_BxT)
    kl_BxT = k3(jnp.where(w_BxT != 0, reference_log_probs_BxT - log_probs_BxT, 0.0))
    return surrogate_BxT + s.kl_weight * kl_BxT, (surrogate_BxT, kl_BxT, clipped_BxT)


def policy_gradient_loss(
    params: Params,
    config: models.ModelConfig,
    settings: GrpoSettings,
    trajectories: Trajectories,
    advantages_B: jax.Array,
    old_params: Params | None = None,
    reference_params: Params | None = None,
    reference_config: models.ModelConfig | None = None,
    vocab_size: int | None = None,
) -> SurrogateSums:
    """The surrogate on tokens with a likelihood weight: they weigh -log p by A at a ratio of 1.

    Args:
      old_params: the weights that wrote the text; None: `params` did, and it costs no forward pass.
      reference_params, reference_config: the frozen policy of the penalty; run if there is one.
      vocab_size: only ids below it can have been drawn; None: all.

    Raises:
      ValueError: a penalty without a reference policy.
    """
    t = trajectories
    tokens_BxT, weights_BxT = t.tokens_BxT[:, 1:], t.likelihood_weights_BxT[:, 1:]

    def fixed(params: Params, config: models.ModelConfig) -> jax.Array:
        hidden = predictions(params, config, t).hidden_BxTxD
        scores = token_log_probs(params, config, hidden, tokens_BxT, vocab_size)
        return jax.lax.stop_gradient(scores)

    old_BxT = None if old_params is None else fixed(old_params, config)
    reference_BxT = None
    if settings.kl_weight > 0:
        if reference_params is None or reference_config is None:
            raise ValueError(f"grpo.kl_weight={settings.kl_weight} needs a reference policy.")
        reference_BxT = fixed(reference_params, reference_config)

    def per_token(logits: jax.Array, _: None, x: dict[str, Any]) -> tuple[jax.Array, Any]:
        new = log_probs(mask_padding(logits, vocab_size), x["tokens"])
        old = jax.lax.stop_gradient(new) if x["old"] is None else x["old"]
        terms = x["advantages"], x["weights"], x["reference"]
        return _token_loss(settings, new, old, *terms)[0], new

    total, new_BxT = weighted_sum(
        per_token,
        predictions(params, config, t),
        None,
        _token_weights(settings, weights_BxT),
        {
            "tokens": tokens_BxT,
            "advantages": jnp.broadcast_to(advantages_B[:, None], tokens_BxT.shape),
            "weights": weights_BxT,
            "old": old_BxT,
            "reference": reference_BxT,
        },
    )
    old_BxT = new_BxT if old_BxT is None else old_BxT
    sums = surrogate_sums(settings, new_BxT, old_BxT, advantages_B, weights_BxT, reference_BxT)
    return sums.replace(total=total)
