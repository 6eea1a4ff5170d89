"""ATESD's train step: decide the exposure, distil from the exposed teacher, reward the decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

import distill.train.update
import models
from atesd.control.controller import decide, init_controller, is_decision, observe
from atesd.exposure import References, expose
from atesd.grounding import reference_log_probs
from atesd.loss import (
    LossSettings,
    RowScores,
    exposed_scores,
    group_means,
    groups_by_difficulty,
    join,
    row_difficulty,
)
from atesd.settings import ControllerSettings
from distill.train.sharding import round_up
from distill.train.state import TrainState
from distill.train.update import make_update, parts_of_rows, rows_of_parts
from distill.trajectories import Source, Trajectories
from models.checks import Share, at_least, between, check, one_of
from models.parameters import Params
from models.sharding import constrain_rows

_NOTHING: Any = np.float32(np.nan)  # of what is not measured `decide` keeps the last value


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """Whose weights the exposed teacher has, and how it is asked about references.

    Attributes:
      weights: `frozen`, those handed to the train step: the student's initial ones in OPSD; `ema`,
        a running average of the student's; or `live`, the student's own, without a gradient.
      decay: of the average, per update.
      probe_exposure: a of the teacher on the probe batch, where its loss is rewarded.
      grounding_rows: rows of a batch on which the exposed teacher is asked about its references
        (q of Eq. 8), from the first; 0 for all. It costs one forward pass over them.
    """

    weights: Annotated[str, one_of("frozen", "ema", "live")] = "frozen"
    decay: Annotated[float, between(0, 1, "[)")] = 0.999
    probe_exposure: Share = 0.5
    grounding_rows: Annotated[int, at_least(0, "all")] = 0

    def __post_init__(self):
        check(self, "exposed")


class ExposedBatch(flax.struct.PyTreeNode):
    """Students' rollouts, and the references of the same rows."""

    trajectories: Trajectories
    references: References


TrainStep = Callable[
    [TrainState, Params | None, tuple[ExposedBatch, ExposedBatch | None]],
    tuple[TrainState, distill.train.update.Metrics],
]


def init_method_state(
    params: Params, key: jax.Array, controller: ControllerSettings, teacher: TeacherSettings
) -> dict[str, Any]:
    """What the train step carries: `controller`, and `teacher_params` where they are averaged.

    Args:
      params: the student's initial ones.
      key: a typed key; all of the controller's noise.
    """
    state: dict[str, Any] = {"controller": init_controller(key, controller)}
    if teacher.weights == "ema":
        state["teacher_params"] = jax.tree.map(jnp.copy, params)
    return state


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is fixed before training; see `make_train_step`."""

    student_config: models.ModelConfig
    teacher_config: models.ModelConfig
    loss: LossSettings
    controller: ControllerSettings
    teacher: TeacherSettings
    max_response: int
    eos_id: int
    micro_batches: int

    def weights(self, state: TrainState, teacher_params: Params | None) -> Params:
        """The teacher's, without a gradient; `teacher_params` are read where it is frozen."""
        student = self.student_config
        # The base of the student's adapters stands in the student's own parameters.
        base = student.lora is not None and self.teacher_config == student.replace(lora=None)
        own = self.teacher.weights == "live" or (teacher_params is None and base)
        theirs: Any = state.params if own else teacher_params
        if self.teacher.weights == "ema":
            theirs = state.method_state["teacher_params"]
        return jax.lax.stop_gradient(theirs)

    def scores(
        self,
        params: Params,
        teacher_params: Params,
        exposure_G: jax.Array,
        responses: jax.Array | None,
        rows: tuple[ExposedBatch, jax.Array | None],
    ) -> RowScores:
        """`exposed_scores` of a batch, or of a part of one; `rows` are it and its groups [B]."""
        batch, group_B = rows
        return exposed_scores(
            params,
            self.student_config,
            teacher_params,
            self.teacher_config,
            batch.trajectories,
            batch.references,
            exposure_G,
            self.loss,
            self.max_response,
            responses,
            group_B,
        )


def sort_rows(plan: Plan, params: Params, batch: ExposedBatch) -> jax.Array | None:
    """The rows' groups [B], where a part of a batch does not tell."""
    config, groups = plan.student_config, plan.controller.groups
    if plan.micro_batches == 1 or groups == 1:
        return None

    def difficulty(part: ExposedBatch) -> jax.Array:
        part = constrain_rows(part, config.mesh, config.rules, "micro-batch")
        return row_difficulty(
            params, config, plan.teacher_config, part.trajectories, part.references, plan.loss
        )

    parts = jax.tree.map(lambda x: parts_of_rows(x, plan.micro_batches), batch)
    return groups_by_difficulty(rows_of_parts(jax.lax.map(difficulty, parts)), groups)


def measure_probe(
    plan: Plan, params: Params, teacher_params: Params, probe: ExposedBatch
) -> tuple[jax.Array, jax.Array]:
    """The student's NLL of the probe batch's references, and its loss there, if it is rewarded."""
    t = probe.trajectories
    prompts = t.tokens_BxT[:, : t.tokens_BxT.shape[1] - plan.max_response]
    lengths = jnp.sum(t.source_BxT == Source.PROMPT, axis=1)
    nll_B = -reference_log_probs(
        params, plan.student_config, prompts, lengths, probe.references, plan.eos_id
    )
    if plan.controller.reward_loss != "probe":  # two more forward passes that nothing would read
        return jnp.mean(nll_B), _NOTHING
    exposure = jnp.full((1,), plan.teacher.probe_exposure)
    scores = plan.scores(params, teacher_params, exposure, None, (probe, None))
    return jnp.mean(nll_B), scores.loss


def ask_teacher(
    plan: Plan,
    teacher_params: Params,
    references: References,
    exposure_G: jax.Array,
    group_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """q of Eq. 8, by group [G] and in all: the exposed teacher's mean log-probability of texts.

    NaN for a group that has none of the rows that are asked about.
    """
    asked = plan.teacher.grounding_rows or group_B.shape[0]
    # Over again, so often that they divide over the mesh.
    chosen = np.arange(round_up(asked, plan.teacher_config.mesh)) % asked
    few = jax.tree.map(lambda x: x[chosen], references)
    contexts, lengths = expose(few, exposure_G[group_B[chosen]])
    log_probs_B = reference_log_probs(
        teacher_params, plan.teacher_config, contexts, lengths, few, plan.eos_id
    )[:asked]
    groups = jnp.arange(plan.controller.groups)[:, None]
    member_GxB = (group_B[:asked] == groups).astype(jnp.float32)
    counts_G = jnp.sum(member_GxB, axis=1)
    mean_G = member_GxB @ log_probs_B / jnp.maximum(counts_G, 1.0)
    return jnp.where(counts_G > 0, mean_G, jnp.nan), jnp.mean(log_probs_B)


def make_train_step(
    student_config: models.ModelConfig,
    teacher_config: models.ModelConfig,
    loss: LossSettings,
    controller: ControllerSettings,
    teacher: TeacherSettings,
    optimizer: optax.GradientTransformation,
    steps: int,
    max_response: int,
    eos_id: int,
    micro_batches: int = 1,
) -> TrainStep:
    """Builds the pure `train_step(state, teacher_params, (batch, probe)) -> (state, metrics)`.

    It consumes rollouts and never samples text. `state.method_state` is that of
    `init_method_state`; `state.step` counts the updates, of which there are `steps` in all.

    Args:
      teacher_config: the student's own, unless an external teacher is frozen. The student's
        without its adapters, and no `teacher_params`: the base in the student's parameters.
      max_response: most tokens of a response.
      eos_id: the token that ends a reference where it is scored.
      micro_batches: `distill.train.update.make_train_step`'s; groups and the mean over rows are
        those of the whole batch. With several groups by confidence it costs one more forward pass.

    Returns:
      The step. `teacher_params` are read where the teacher is frozen. `probe` is a fixed batch of
      held-out problems with responses of the initial student: every `hold` updates the student's
      NLL of its references is measured, and where `reward_loss = "probe"` the loss at
      `probe_exposure`, too. It may be None where the policy does not learn. Metrics, besides those
      of `distill.train.update.make_train_step` and `atesd.control.controller.observe`: `mismatch`
      (Eq. 4), `disagreement`, `confidence`, `clipped`, `empty_responses`; where they are measured
      `probe_nll` and `probe_loss`; with a learned policy `grounding_now` (q of this batch).

    Raises:
      ValueError: a teacher of another architecture that is not frozen.
    """
    if teacher.weights != "frozen" and teacher_config != student_config:
        raise ValueError(
            f"exposed.weights={teacher.weights!r} is made of the student's weights, but the "
            "teacher is another model. Use 'frozen'."
        )
    plan = Plan(
        student_config,
        teacher_config,
        loss,
        controller,
        teacher,
        max_response,
        eos_id,
        micro_batches,
    )
    update = make_update(plan.scores, optimizer, student_config, micro_batches, join)

    def train_step(
        state: TrainState,
        teacher_params: Params | None,
        batches: tuple[ExposedBatch, ExposedBatch | None],
    ) -> tuple[TrainState, distill.train.update.Metrics]:
        batch, probe = batches
        theirs = plan.weights(state, teacher_params)
        here = state.method_state["controller"]
        probed = _NOTHING, _NOTHING
        if probe is not None:
            probed = jax.lax.cond(
                is_decision(controller, state.step),
                lambda: measure_probe(plan, state.params, theirs, probe),
                lambda: (_NOTHING, _NOTHING),
            )
        here = decide(here, controller, state.step, steps, *probed)
        responses = jnp.sum(jnp.any(batch.trajectories.divergence_weights_BxT[:, 1:] != 0, axis=1))
        rows = batch, sort_rows(plan, state.params, batch)
        new, scores, metrics = update(state, theirs, here.exposure_G, responses, rows)
        loss_G, mismatch_G, confidence_G = (
            group_means(x_B, scores, controller.groups)
            for x_B in (scores.loss_B, scores.mismatch_B, scores.confidence_B)
        )
        grounding_G = jnp.zeros(controller.groups)
        if controller.policy == "learned":
            grounding_G, metrics["grounding_now"] = ask_teacher(
                plan, theirs, batch.references, here.exposure_G, scores.group_B
            )
        here, seen = observe(
            here, controller, state.step, loss_G, mismatch_G, grounding_G, confidence_G
        )
        method_state = {**state.method_state, "controller": here}
        if teacher.weights == "ema":
            # In this form the average of what is frozen is exactly that.
            averaged = jax.tree.map(
                lambda average, x: average + (1 - teacher.decay) * (x - average), theirs, new.params
            )
            # A batch that changes no weights leaves their average alone, too.
            method_state["teacher_params"] = distill.train.update.where(
                metrics["skipped"] + metrics["idle"] == 0, averaged, theirs
            )
        if probe is not None:
            metrics["probe_nll"] = jnp.mean(here.probe_nll_G)
            if controller.reward_loss == "probe":
                metrics["probe_loss"] = jnp.mean(here.probe_loss_G)
        return new.replace(method_state=method_state), {**metrics, **seen}

    return train_step
