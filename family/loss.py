"""The one loss of the family: a (-log p) + w D - S(rho, A), of a plan.

    L = 1 / N sum over tokens of m [a (-log p) + w D - min(rho A, clip(rho, 1 - low, 1 + high) A)]

The heads are gone through twice, in blocks. The first time nothing is differentiated: it gives the
plan what it reads, log-probabilities, entropies, divergences. But for D, the loss depends on the
logits through log p of the tokens alone, so that its slope there, g = dL / d log p, says all that
the second time needs: the sum of g log p + m w D / N has the gradient of L.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp

import models
from distill.losses.chunked import Readout, log_probs, readout, weighted_sum
from distill.losses.context import gather, teacher_view
from distill.losses.divergence import reverse_kl, times_log
from distill.losses.log_probs import token_log_probs
from distill.losses.signal import token_divergence
from distill.losses.surrogate import Advantage, clipped_surrogate
from distill.train.update import Metrics
from distill.trajectories import Trajectories
from family.methods import Method
from family.responses import place, total
from family.tokens import Plan, Tokens
from models.checks import Share, at_least, check, one_of
from models.parameters import Params


@dataclasses.dataclass(frozen=True)
class SurrogateSettings:
    """What all plans are put into.

    Attributes:
      clip_low, clip_high: rho leaves no gradient below 1 - clip_low where the advantage is
        negative, and above 1 + clip_high where it is positive.
      advantage: a reward is relative to its group's mean, and is divided by the group's standard
        deviation (`std`) or is not (`none`).
      normalise: `sequence` is the mean over responses of the mean over their tokens, `token` one
        mean over all tokens.
    """

    clip_low: Share = 0.2
    clip_high: Annotated[float, at_least(0)] = 0.2
    advantage: Advantage = "std"
    normalise: Annotated[str, one_of("sequence", "token")] = "token"

    def __post_init__(self):
        check(self, "surrogate")


class PlannedBatch(flax.struct.PyTreeNode):
    """Rows, and what a plan reads of them besides what the models say; None where it does not.

    Attributes:
      trajectories: tokens with a likelihood weight train, by that weight.
      rewards_B: 1 where the response is right, else 0; the rows of a group lie side by side.
      advantage_B, group_right_B, row_weight_B: made of `rewards_B` by the train step, since a part
        of a batch holds parts of groups.
      log_ref_BxT: a third model's log-probabilities of the tokens, laid out as weights are.
      contexts_BxC: what the teacher reads in place of the prompt.
      context_lengths_B: in tokens.
    """

    trajectories: Trajectories
    rewards_B: jax.Array | None = None
    advantage_B: jax.Array | None = None
    group_right_B: jax.Array | None = None
    row_weight_B: jax.Array | None = None
    log_ref_BxT: jax.Array | None = None
    contexts_BxC: jax.Array | None = None
    context_lengths_B: jax.Array | None = None


class PlannedSums(flax.struct.PyTreeNode):
    """Sums over a batch, and the counts they are divided by, once.

    Attributes:
      total: `surrogate + likelihood + divergence`: what is differentiated.
      surrogate, likelihood, divergence: the three parts; None where the plan has no such part.
      gap: sum of d over tokens, None without a teacher.
      limited: weight of the tokens on which a bound of the method's own acted; None without any.
      clipped: weight of the tokens whose ratio is clipped.
      count: what the parts are divided by: weight of all tokens, or responses that have any.
      tokens: weight of all tokens.
      idle_rows: rows that hold tokens of which none trains.
    """

    total: jax.Array
    surrogate: jax.Array | None
    likelihood: jax.Array | None
    divergence: jax.Array | None
    gap: jax.Array | None
    limited: jax.Array | None
    clipped: jax.Array
    count: jax.Array
    tokens: jax.Array
    idle_rows: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The loss; 0 where nothing trains."""
        return self.total / jnp.maximum(self.count, 1.0)

    @property
    def metrics(self) -> Metrics:
        """The loss's parts; `gap`, nats per token; `clipped` and `limited`, shares of tokens."""
        count, tokens = (jnp.maximum(x, 1.0) for x in (self.count, self.tokens))
        parts = {name: getattr(self, name) for name in ("surrogate", "likelihood", "divergence")}
        shares = {name: getattr(self, name) for name in ("gap", "clipped", "limited")}
        return {
            **{name: x / count for name, x in parts.items() if x is not None},
            **{name: x / tokens for name, x in shares.items() if x is not None},
            "idle_rows": self.idle_rows,
        }


def token_weights(
    normalise: str, weights_BxT: jax.Array, segment_ids_BxT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Every token's weight in the sums [B, T], and what the sums are divided by []."""
    if normalise == "token":
        return weights_BxT, jnp.sum(weights_BxT)
    counted_BxT = weights_BxT != 0
    whole_BxT = total(weights_BxT, segment_ids_BxT)
    first_BxT = counted_BxT & (place(counted_BxT, segment_ids_BxT) == 0)
    return weights_BxT / jnp.where(counted_BxT, whole_BxT, 1.0), jnp.sum(first_BxT)


def token_loss(
    plan: Plan, tokens: Tokens, clip_low: float, clip_high: float
) -> tuple[jax.Array, dict[str, Any]]:
    """a (-log p) - S(rho, A) of every token [B, T], and its parts: what of the loss is no D.

    Raises:
      ValueError: a plan with an advantage and no ratio.
    """
    t = tokens
    parts: dict[str, Any] = {"surrogate": None, "likelihood": None}
    loss_BxT, clipped_BxT = jnp.zeros_like(t.log_p_BxT), jnp.zeros(t.log_p_BxT.shape, bool)
    if plan.likelihood_BxT is not None:
        weight_BxT = jax.lax.stop_gradient(plan.likelihood_BxT)
        parts["likelihood"] = jnp.where(t.counted_BxT, -weight_BxT * t.log_p_BxT, 0.0)
    if plan.advantage_BxT is not None:
        if plan.log_ratio_BxT is None:
            raise ValueError("A plan with an advantage needs a log-ratio: log_p - log_b, say.")
        advantage_BxT = jax.lax.stop_gradient(plan.advantage_BxT)
        ratio_BxT, zeros = plan.log_ratio_BxT, jnp.zeros_like(t.log_p_BxT)
        if plan.clips:
            parts["surrogate"], clipped_BxT = clipped_surrogate(
                ratio_BxT, zeros, advantage_BxT, t.weights_BxT, clip_low, clip_high
            )
        else:
            ratio_BxT = jnp.where(t.counted_BxT, ratio_BxT, 0.0)
            parts["surrogate"] = -advantage_BxT * jnp.exp(ratio_BxT)
    for part in parts.values():
        loss_BxT = loss_BxT if part is None else loss_BxT + part
    return loss_BxT, {**parts, "clipped": clipped_BxT}


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What is fixed of a loss; see `__call__`.

    Attributes:
      student_config, teacher_config: the models'; the latter None where no teacher is read.
      method, plan: a method, and the settings of its plan.
      surrogate: what the plan is put into.
      vocab_size: distributions run over the ids below it, those that both models have.
      eos_ids: tokens that end a text.
      max_response: no response is longer, in tokens.
    """

    student_config: models.ModelConfig
    teacher_config: models.ModelConfig | None
    method: Method
    plan: Any
    surrogate: SurrogateSettings
    vocab_size: int
    eos_ids: tuple[int, ...]
    max_response: int

    def __call__(
        self,
        params: Params,
        old_params: Params | None,
        teacher_params: Params | None,
        step: jax.Array,
        batch: PlannedBatch,
    ) -> PlannedSums:
        """The sums of a batch, or of a part of one.

        Args:
          old_params: the weights that wrote the text; None: `params` did.
          teacher_params: None where scores were kept, or no teacher is read.
          step: updates before this one [].

        Raises:
          ValueError: the plan reads a teacher, and there is none.
        """
        s, t = self.surrogate, batch.trajectories
        student, teacher = self.readouts(params, teacher_params, batch)
        tokens = self.tokens(student, teacher, old_params, step, batch)
        each_BxT, count = token_weights(s.normalise, tokens.weights_BxT, tokens.segment_ids_BxT)

        def linear(log_p_BxT: jax.Array) -> tuple[jax.Array, tuple[Plan, dict[str, Any]]]:
            live = tokens.replace(log_p_BxT=log_p_BxT)
            plan = self.method.plan(self.plan, live)
            loss_BxT, parts = token_loss(plan, live, s.clip_low, s.clip_high)
            return jnp.sum(each_BxT * loss_BxT), (plan, parts)

        slope_BxT, (plan, parts) = jax.grad(linear, has_aux=True)(tokens.log_p_BxT)
        slid, divergence_BxT = self._second_pass(
            student, teacher, t, tokens, plan, slope_BxT, each_BxT
        )

        def added(values_BxT: jax.Array | None, weights_BxT: jax.Array) -> jax.Array | None:
            return None if values_BxT is None else jnp.sum(weights_BxT * values_BxT)

        sums = {
            "surrogate": added(parts["surrogate"], each_BxT),
            "likelihood": added(parts["likelihood"], each_BxT),
            "divergence": added(divergence_BxT, each_BxT),
        }
        value = sum((x for x in sums.values() if x is not None), jnp.zeros(()))
        gap_BxT = tokens.gap_BxT if self.method.taught else None
        return PlannedSums(
            # The value is of the parts; the gradient, which is theirs too, of the second pass.
            total=jax.lax.stop_gradient(value - slid) + slid,
            **jax.lax.stop_gradient(sums),
            gap=added(gap_BxT, tokens.weights_BxT),
            limited=added(plan.limited_BxT, tokens.weights_BxT),
            clipped=jnp.sum(tokens.weights_BxT * parts["clipped"]),
            count=count,
            tokens=jnp.sum(tokens.weights_BxT),
            idle_rows=t.idle_rows,
        )

    def readouts(
        self, params: Params, teacher_params: Params | None, batch: PlannedBatch
    ) -> tuple[Readout, Readout | None]:
        """Hidden states of student and teacher, the latter where it has to be run.

        Raises:
          ValueError: there is none.
        """
        t = batch.trajectories
        inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
        hidden = models.forward_hidden(params, self.student_config, *inputs)
        student = readout(params, self.student_config, hidden)
        if not self.method.taught or t.teacher_scores is not None:
            return student, None
        if self.teacher_config is None or teacher_params is None:
            raise ValueError("This plan reads what a teacher says of the tokens; give it one.")
        if batch.contexts_BxC is None:
            theirs = models.forward_hidden(teacher_params, self.teacher_config, *inputs)
        else:
            assert batch.context_lengths_B is not None
            view = teacher_view(batch.contexts_BxC, batch.context_lengths_B, t, self.max_response)
            inputs = view.tokens_BxS, view.positions_BxS, view.segment_ids_BxS
            theirs = models.forward_hidden(teacher_params, self.teacher_config, *inputs)
            theirs = gather(theirs, view)[:, :-1]
        return student, readout(teacher_params, self.teacher_config, theirs)

    def tokens(
        self,
        student: Readout,
        teacher: Readout | None,
        old_params: Params | None,
        step: jax.Array,
        batch: PlannedBatch,
    ) -> Tokens:
        """What the plan reads: the first pass. Nothing of it is differentiated."""
        t = batch.trajectories
        targets_BxT = t.tokens_BxT[:, 1:]
        weights_BxT = t.likelihood_weights_BxT[:, 1:]
        inside_BxT = jnp.clip(targets_BxT, max=self.vocab_size - 1)

        def say(p: jax.Array, q: Any, targets: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            p = p[..., : self.vocab_size]
            said = {"log_p_BxT": log_probs(p, targets)}
            if "student" in self.method.entropies:
                said["student_entropy_BxT"] = _entropy(p)
            if q is not None:
                q = q[..., : self.vocab_size]
                said["log_q_BxT"] = log_probs(q, targets)
                if "teacher" in self.method.entropies:
                    said["teacher_entropy_BxT"] = _entropy(q)
                if self.method.kl:
                    said["kl_BxT"] = reverse_kl(q, p)
            return jnp.zeros_like(said["log_p_BxT"]), said

        said = weighted_sum(
            say, *jax.lax.stop_gradient((student, teacher)), weights_BxT, inside_BxT
        )[1]
        if self.method.taught and t.teacher_scores is not None:
            said["log_q_BxT"] = t.teacher_scores.sampled_BxT[:, 1:]
        said["log_b_BxT"] = said["log_p_BxT"]
        if old_params is not None:
            inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
            hidden = models.forward_hidden(old_params, self.student_config, *inputs)
            said["log_b_BxT"] = token_log_probs(
                old_params, self.student_config, hidden, inside_BxT, self.vocab_size
            )
        if batch.log_ref_BxT is not None:
            said["log_ref_BxT"] = batch.log_ref_BxT[:, 1:]
        said["ends_BxT"] = jnp.isin(targets_BxT, jnp.asarray(self.eos_ids)).astype(jnp.float32)
        rows = {
            "advantage_BxT": batch.advantage_B,
            "right_BxT": batch.rewards_B,
            "group_right_BxT": batch.group_right_B,
            "row_weight_BxT": batch.row_weight_B,
        }
        for name, values_B in rows.items():
            if values_B is not None:
                said[name] = jnp.broadcast_to(values_B[:, None], weights_BxT.shape)
        known = {name: jnp.where(weights_BxT != 0, x, 0.0) for name, x in said.items()}
        fixed = jax.lax.stop_gradient(known)
        segment_ids_BxT = t.segment_ids_BxT[:, 1:]
        return Tokens(weights_BxT=weights_BxT, segment_ids_BxT=segment_ids_BxT, step=step, **fixed)

    def _second_pass(
        self,
        student: Readout,
        teacher: Readout | None,
        t: Trajectories,
        tokens: Tokens,
        plan: Plan,
        slope_BxT: jax.Array,
        each_BxT: jax.Array,
    ) -> tuple[jax.Array, jax.Array | None]:
        """What has the loss's gradient [], and w D of every token [B, T], if there is any."""
        signal = None if plan.divergence_BxT is None else self.method.signal(self.plan)
        inside_BxT = jnp.clip(t.tokens_BxT[:, 1:], max=self.vocab_size - 1)
        extras: dict[str, Any] = {"targets": inside_BxT, "slope": slope_BxT}
        if signal is not None:
            extras |= {"each": each_BxT, "weight": plan.divergence_BxT}

        def value(p: jax.Array, q: Any, x: dict[str, Any]) -> tuple[jax.Array, Any]:
            p = p[..., : self.vocab_size]
            slid = x["slope"] * log_probs(p, x["targets"])
            if signal is None:
                return slid, None
            q = q[..., : self.vocab_size]
            each = x["weight"] * token_divergence(signal, q, p, x["targets"], x["each"])
            return slid + x["each"] * each, each

        counted_BxT = tokens.counted_BxT.astype(jnp.float32)
        theirs = None if signal is None else teacher
        return weighted_sum(value, student, theirs, counted_BxT, extras)


def _entropy(logits: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(times_log(jnp.exp(log_p), log_p), axis=-1)
