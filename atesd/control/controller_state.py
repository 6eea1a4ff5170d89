"""What the exposure controller carries from batch to batch."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from atesd.control.credit import Completed, Pending, init_completed, init_pending
from atesd.control.features import Readings, init_readings, num_features
from atesd.control.policy import init_policy, policy_optimizer
from atesd.settings import ControllerSettings


class ControllerState(flax.struct.PyTreeNode):
    """Everything the controller carries from batch to batch: arrays only, small and finite.

    Attributes:
      params, opt_state: the policy's, and Adam's.
      key_data: uint32, of the key that draws are folded from.
      exposure_G: a of the coming batches, in [0, 1].
      shape_a_G, shape_b_G: A and B of the Beta it was drawn from.
      readings: the averages behind the policy's state.
      probe_nll_G, probe_loss_G: of the probe batch at the last decision, in nats.
      probe_seen_G: `probe_loss_G` was measured.
      pending, completed: decisions that wait for their reward, and for the next policy update.
      gain_G, grounding_G, reward_G: G_lp, G_gt (raw, in nats) and R of the last completed decision.
      policy_loss: Eq. 9 at the last policy update.
      decisions, decisions_completed, updates: int32, counts so far; updates of the policy.
      skipped: int32, batches with an observation that was not finite.
    """

    params: Any
    opt_state: optax.OptState
    key_data: jax.Array
    exposure_G: jax.Array
    shape_a_G: jax.Array
    shape_b_G: jax.Array
    readings: Readings
    probe_nll_G: jax.Array
    probe_loss_G: jax.Array
    probe_seen_G: jax.Array
    pending: Pending
    completed: Completed
    gain_G: jax.Array
    grounding_G: jax.Array
    reward_G: jax.Array
    policy_loss: jax.Array
    decisions: jax.Array
    decisions_completed: jax.Array
    updates: jax.Array
    skipped: jax.Array


def init_controller(key: jax.Array, settings: ControllerSettings) -> ControllerState:
    """The state before the first decision. `exposure_G` means nothing until `decide` sets it."""
    policy_key, draw_key = jax.random.split(key)
    params = init_policy(policy_key, num_features(settings), settings.hidden)
    zeros_G, ones_G = jnp.zeros(settings.groups), jnp.ones(settings.groups)
    zero = jnp.zeros((), jnp.int32)
    return ControllerState(
        params=params,
        opt_state=policy_optimizer(settings).init(params),
        key_data=jax.random.key_data(draw_key),
        exposure_G=settings.fixed * ones_G,
        shape_a_G=ones_G,
        shape_b_G=ones_G,
        readings=init_readings(settings.groups),
        probe_nll_G=zeros_G,
        probe_loss_G=zeros_G,
        probe_seen_G=zeros_G > 0,
        pending=init_pending(settings),
        completed=init_completed(settings),
        gain_G=zeros_G,
        grounding_G=zeros_G,
        reward_G=zeros_G,
        policy_loss=jnp.zeros(()),
        decisions=zero,
        decisions_completed=zero,
        updates=zero,
        skipped=zero,
    )
