"""The exposure controller: decides before a batch, observes after it, learns now and then.

Before every batch `decide`, after it `observe`; both are pure and take any step without being
compiled again. Close over the settings:

    state = decide(state, settings, step, steps, probe_nll, probe_loss)
    ... the batch, at exposures state.exposure_G ...
    state, metrics = observe(state, settings, step, loss_G, mismatch_G, log_prob_G, confidence_G)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from atesd.control import beta
from atesd.control.controller_state import ControllerState, init_controller
from atesd.control.credit import add_decision, collect, credit, due, rewards
from atesd.control.features import build, read
from atesd.control.policy import policy_loss, policy_optimizer, shapes
from atesd.settings import ControllerSettings
from distill.train.update import spoils, where

__all__ = ["ControllerState", "decide", "init_controller", "is_decision", "observe"]


def is_decision(settings: ControllerSettings, step: jax.Array | int) -> jax.Array:
    """Whether `decide` reads the probe, and draws, before batch `step`."""
    return jnp.asarray(step) % settings.hold == 0


def decide(
    state: ControllerState,
    settings: ControllerSettings,
    step: jax.Array | int,
    steps: jax.Array | int,
    probe_nll: jax.Array | float,
    probe_loss: jax.Array | float,
) -> ControllerState:
    """Sets the exposure of the coming batch; call it before every batch, in order.

    A `schedule` is followed at every step. All else happens where `is_decision`: a new exposure is
    drawn and the probe's values are held until the next one; values that are not finite leave the
    held ones as they are.

    Args:
      step: 0-based index of the coming batch.
      steps: of the whole training.
      probe_nll: student's NLL of the probe batch's references, in nats per token; [] or [G].
      probe_loss: distillation loss on the probe batch, in nats per token; [] or [G]. Rewarded where
        `reward_loss = "probe"`.
    """
    step = jnp.asarray(step, jnp.int32)
    dtype = state.exposure_G.dtype
    if settings.policy == "schedule":
        points = jnp.asarray(settings.schedule, dtype)
        exposure = jnp.interp(step.astype(dtype), points[:, 0], points[:, 1])
        state = state.replace(exposure_G=jnp.full_like(state.exposure_G, exposure))

    def new_decision(state: ControllerState) -> ControllerState:
        state = _hold_probe(state, settings, _per_group(state, probe_nll, probe_loss))
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.decisions)
        if settings.policy == "learned":
            progress = jnp.clip(step.astype(dtype) / jnp.asarray(steps, dtype), 0.0, 1.0)
            state = _draw(state, settings, step, progress, key)
        if settings.policy == "random":
            low, high = settings.exposure_min, settings.exposure_max
            drawn_G = jax.random.uniform(key, (settings.groups,), dtype, low, high)
            state = state.replace(exposure_G=drawn_G)
        return state.replace(decisions=state.decisions + 1)

    return jax.lax.cond(is_decision(settings, step), new_decision, lambda state: state, state)


def observe(
    state: ControllerState,
    settings: ControllerSettings,
    step: jax.Array | int,
    loss_G: jax.Array | float,
    mismatch_G: jax.Array | float,
    teacher_log_prob_G: jax.Array | float,
    confidence_G: jax.Array | float,
) -> tuple[ControllerState, dict[str, jax.Array]]:
    """Takes in batch `step`; with N decisions complete, updates the policy.

    Each argument is [G], or one value for all groups. An entry that is not finite, be it of a bad
    batch or of a group without samples, is left out of averages and credit, and counted. With
    `reward_loss = "probe"` the held probe loss is credited in place of `loss_G`: it is constant
    between decisions, so its whole decrease falls on the batch after the refresh.

    Args:
      step: 0-based index of the batch.
      loss_G: the distillation loss before this batch's update, in nats per token.
      mismatch_G: M (Eq. 4) of exposed teacher and student, in nats per token.
      teacher_log_prob_G: mean log-probability of the reference's tokens under the exposed teacher.
      confidence_G: mean probability of the sampled rollout tokens.

    Returns:
      (the next state, metrics [] of every policy: `exposure`, `observations_skipped`; and of a
      learned one: `beta_a`, `beta_b` and `controller_entropy` of the held decision;
      `decision_reward`, `gain` (G_lp) and `grounding` (G_gt), the latter two raw, of the last
      completed decision; `controller_loss` at the last policy update; `decisions_completed`,
      `controller_updates`. What was not computed yet is 0. With several groups the means over them,
      and each group's value under its name and `_0`, `_1`, ...)
    """
    step = jnp.asarray(step, jnp.int32)
    observed = _per_group(state, loss_G, mismatch_G, teacher_log_prob_G, confidence_G)
    loss_G, mismatch_G, teacher_log_prob_G, confidence_G = observed
    skipped = ~jnp.all(jnp.isfinite(jnp.stack(observed)))
    state = state.replace(skipped=state.skipped + skipped)
    if settings.policy == "learned":
        readings = read(
            state.readings,
            settings.ema_decay,
            exposure=state.exposure_G,
            loss=loss_G,
            mismatch=mismatch_G,
            confidence=confidence_G,
        )
        if settings.reward_loss == "probe":
            loss_G = jnp.where(state.probe_seen_G, state.probe_loss_G, jnp.nan)
        pending = credit(state.pending, settings, step, loss_G, teacher_log_prob_G)
        state = state.replace(readings=readings, pending=pending)
        due_C = due(pending, settings, step)
        state = jax.lax.cond(
            jnp.any(due_C),
            lambda state: _complete(state, settings, step, jnp.argmax(due_C)),
            lambda state: state,
            state,
        )
    return state, _metrics(state, settings)


def _per_group(state: ControllerState, *values) -> list[jax.Array]:
    like = state.exposure_G
    return [jnp.broadcast_to(jnp.asarray(x, like.dtype), like.shape) for x in values]


def _hold_probe(
    state: ControllerState, settings: ControllerSettings, probe_G: list[jax.Array]
) -> ControllerState:
    nll_G, loss_G = probe_G
    return state.replace(
        readings=read(state.readings, settings.ema_decay, probe_nll=nll_G),
        probe_nll_G=jnp.where(jnp.isfinite(nll_G), nll_G, state.probe_nll_G),
        probe_loss_G=jnp.where(jnp.isfinite(loss_G), loss_G, state.probe_loss_G),
        probe_seen_G=state.probe_seen_G | jnp.isfinite(loss_G),
    )


def _draw(
    state: ControllerState,
    settings: ControllerSettings,
    step: jax.Array,
    progress: jax.Array,
    key: jax.Array,
) -> ControllerState:
    readings, features_GxF = build(state.readings, progress)
    a_G, b_G = shapes(state.params, features_GxF)
    drawn_G = jnp.clip(beta.sample(key, a_G, b_G), settings.exposure_min, settings.exposure_max)
    return state.replace(
        exposure_G=drawn_G,
        shape_a_G=a_G,
        shape_b_G=b_G,
        readings=readings,
        pending=add_decision(state.pending, state.decisions, step, features_GxF, drawn_G),
    )


def _complete(
    state: ControllerState, settings: ControllerSettings, step: jax.Array, slot: jax.Array
) -> ControllerState:
    completed = collect(state.completed, state.pending, slot)
    row = completed.count - 1
    state = state.replace(
        completed=completed,
        decisions_completed=state.decisions_completed + 1,
        gain_G=completed.gain_NxG[row],
        grounding_G=completed.grounding_NxG[row],
        reward_G=rewards(completed, settings)[row],
    )
    return jax.lax.cond(
        completed.count == settings.decisions_per_update,
        lambda state: _update(state, settings, step),
        lambda state: state,
        state,
    )


def _update(
    state: ControllerState, settings: ControllerSettings, step: jax.Array
) -> ControllerState:
    completed = state.completed
    loss, gradients = jax.value_and_grad(policy_loss)(
        state.params,
        completed.features_NxGxF,
        completed.exposure_NxG,
        rewards(completed, settings),
        jnp.where(step < settings.entropy_warmup, 0.0, settings.entropy_weight),
        settings.entropy_target,
    )
    updates, opt_state = policy_optimizer(settings).update(gradients, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradients))
    finite &= ~spoils(params) & ~spoils(opt_state, state.opt_state)
    params, opt_state = where(finite, (params, opt_state), (state.params, state.opt_state))
    return state.replace(
        params=params,
        opt_state=opt_state,
        completed=completed.replace(count=jnp.zeros_like(completed.count)),
        policy_loss=loss,
        updates=state.updates + 1,
    )


def _metrics(state: ControllerState, settings: ControllerSettings) -> dict[str, jax.Array]:
    per_group = {"exposure": state.exposure_G}
    metrics = {"observations_skipped": state.skipped}
    if settings.policy == "learned":
        per_group |= {
            "beta_a": state.shape_a_G,
            "beta_b": state.shape_b_G,
            "controller_entropy": beta.entropy(state.shape_a_G, state.shape_b_G),
            "decision_reward": state.reward_G,
            "gain": state.gain_G,
            "grounding": state.grounding_G,
        }
        metrics |= {
            "controller_loss": state.policy_loss,
            "decisions_completed": state.decisions_completed,
            "controller_updates": state.updates,
        }
    for name, x_G in per_group.items():
        metrics[name] = jnp.mean(x_G)
        if settings.groups > 1:
            metrics |= {f"{name}_{group}": x_G[group] for group in range(settings.groups)}
    return metrics
