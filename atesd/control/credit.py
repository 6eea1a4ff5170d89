"""Delayed credit (Eq. 8): what the updates after a decision say of it, gathered as they come.

l_t is the loss after t updates and q_t belongs to update t, so that the batch with 0-based index k
shows l_k, before its own update, and q_{k+1}. A decision taken at t0 holds for the batches t0 to
t0 + H - 1; its reward sums the falls from l_{t0+i-1} to l_{t0+i} and the q_{t0+i}, i = 1..L, and is
complete once batch t0 + L is seen. Windows cut by the end of training are never rewarded: of 100
updates with H = 5 and L = 20, 16 decisions complete. Were l_100 measured after the last update, it
would be 17.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from atesd.control.features import num_features
from atesd.control.moments import Moments, add, divide, init_moments, std
from atesd.settings import ControllerSettings


class Pending(flax.struct.PyTreeNode):
    """A ring of the latest C decisions and the sums of their rewards so far.

    Decisions at most L updates old are pending: the one just taken and those 1 to L // H holds
    before it. C = ceil(L / H) + 1 slots are therefore enough; a decision older than L stays in its
    slot, no longer touched, until a new one takes its place.

    Attributes:
      start_C: int32, t0; -1 in a slot not used yet.
      features_CxGxF, exposure_CxG: s and a.
      gain_CxG: G_lp, in nats.
      grounding_CxG: sum of g^(i-1) q_{t0+i}, in nats.
      weight_CxG: sum of g^(i-1) over the same i.
      loss_G: the last loss seen, in nats.
      loss_seen_G: there was one.
    """

    start_C: jax.Array
    features_CxGxF: jax.Array
    exposure_CxG: jax.Array
    gain_CxG: jax.Array
    grounding_CxG: jax.Array
    weight_CxG: jax.Array
    loss_G: jax.Array
    loss_seen_G: jax.Array


class Completed(flax.struct.PyTreeNode):
    """Decisions whose L updates are over, gathered for one policy update.

    Attributes:
      count: int32, slots of N in use.
      features_NxGxF, exposure_NxG: s and a.
      gain_NxG, grounding_NxG: G_lp and G_gt, raw, in nats.
      gain_moments, grounding_moments: [] of all completed decisions so far, groups pooled.
    """

    count: jax.Array
    features_NxGxF: jax.Array
    exposure_NxG: jax.Array
    gain_NxG: jax.Array
    grounding_NxG: jax.Array
    gain_moments: Moments
    grounding_moments: Moments


def init_pending(settings: ControllerSettings) -> Pending:
    """No decision yet."""
    slots, groups = -(-settings.look_ahead // settings.hold) + 1, settings.groups
    return Pending(
        start_C=jnp.full(slots, -1, jnp.int32),
        features_CxGxF=jnp.zeros((slots, groups, num_features(settings))),
        exposure_CxG=jnp.zeros((slots, groups)),
        gain_CxG=jnp.zeros((slots, groups)),
        grounding_CxG=jnp.zeros((slots, groups)),
        weight_CxG=jnp.zeros((slots, groups)),
        loss_G=jnp.zeros(groups),
        loss_seen_G=jnp.zeros(groups, bool),
    )


def init_completed(settings: ControllerSettings) -> Completed:
    """No completed decision yet."""
    decisions, groups = settings.decisions_per_update, settings.groups
    return Completed(
        count=jnp.zeros((), jnp.int32),
        features_NxGxF=jnp.zeros((decisions, groups, num_features(settings))),
        exposure_NxG=jnp.zeros((decisions, groups)),
        gain_NxG=jnp.zeros((decisions, groups)),
        grounding_NxG=jnp.zeros((decisions, groups)),
        gain_moments=init_moments(),
        grounding_moments=init_moments(),
    )


def add_decision(
    pending: Pending,
    index: jax.Array,
    step: jax.Array,
    features_GxF: jax.Array,
    exposure_G: jax.Array,
) -> Pending:
    """With decision number index [], taken before batch step [], in the place of the oldest."""
    slot = index % pending.start_C.shape[0]
    return pending.replace(
        start_C=pending.start_C.at[slot].set(step),
        features_CxGxF=pending.features_CxGxF.at[slot].set(features_GxF),
        exposure_CxG=pending.exposure_CxG.at[slot].set(exposure_G),
        gain_CxG=pending.gain_CxG.at[slot].set(0.0),
        grounding_CxG=pending.grounding_CxG.at[slot].set(0.0),
        weight_CxG=pending.weight_CxG.at[slot].set(0.0),
    )


def credit(
    pending: Pending,
    settings: ControllerSettings,
    step: jax.Array,
    loss_G: jax.Array,
    log_prob_G: jax.Array,
) -> Pending:
    """Credits what batch k = step [] shows to every pending decision.

    An entry that is not finite counts as not observed: the next loss is compared with the last one
    seen, and G_gt is a mean over the other updates.

    Args:
      loss_G: l_k, in nats.
      log_prob_G: q_{k+1}, mean log-probability of the reference's tokens under the exposed teacher.
    """
    elapsed_C = jnp.where(pending.start_C >= 0, step - pending.start_C, -1)

    def discounts(i_C):  # g^(i-1) within the window, 0 outside, [C, 1]
        inside_C = (i_C >= 1) & (i_C <= settings.look_ahead)
        power_C = jnp.where(inside_C, i_C - 1, 0).astype(loss_G.dtype)
        return jnp.where(inside_C, settings.discount**power_C, 0.0)[:, None]

    seen_G = jnp.isfinite(loss_G)
    fall_G = jnp.where(seen_G & pending.loss_seen_G, jnp.maximum(0.0, pending.loss_G - loss_G), 0.0)
    known_G = jnp.isfinite(log_prob_G)
    weight_CxG = jnp.where(known_G, discounts(elapsed_C + 1), 0.0)
    return pending.replace(
        gain_CxG=pending.gain_CxG + discounts(elapsed_C) * fall_G,
        grounding_CxG=pending.grounding_CxG + weight_CxG * jnp.where(known_G, log_prob_G, 0.0),
        weight_CxG=pending.weight_CxG + weight_CxG,
        loss_G=jnp.where(seen_G, loss_G, pending.loss_G),
        loss_seen_G=pending.loss_seen_G | seen_G,
    )


def due(pending: Pending, settings: ControllerSettings, step: jax.Array) -> jax.Array:
    """[C] bool: the decision is complete with batch step []; never more than one is."""
    return (pending.start_C >= 0) & (step - pending.start_C == settings.look_ahead)


def collect(completed: Completed, pending: Pending, slot: jax.Array) -> Completed:
    """With the pending decision of slot [], now complete. There must be room for it.

    A decision none of whose q were observed takes the mean G_gt so far: it is judged by its gain.
    """
    gain_G, weight_G = pending.gain_CxG[slot], pending.weight_CxG[slot]
    gain_moments, grounding_moments = completed.gain_moments, completed.grounding_moments
    grounding_G = jnp.where(
        weight_G > 0,
        pending.grounding_CxG[slot] / jnp.where(weight_G > 0, weight_G, 1.0),
        grounding_moments.mean,
    )
    for group in range(gain_G.shape[0]):
        gain_moments = add(gain_moments, gain_G[group])
        grounding_moments = add(grounding_moments, grounding_G[group], weight_G[group] > 0)
    row = completed.count
    return Completed(
        count=completed.count + 1,
        features_NxGxF=completed.features_NxGxF.at[row].set(pending.features_CxGxF[slot]),
        exposure_NxG=completed.exposure_NxG.at[row].set(pending.exposure_CxG[slot]),
        gain_NxG=completed.gain_NxG.at[row].set(gain_G),
        grounding_NxG=completed.grounding_NxG.at[row].set(grounding_G),
        gain_moments=gain_moments,
        grounding_moments=grounding_moments,
    )


def rewards(completed: Completed, settings: ControllerSettings) -> jax.Array:
    """R = G_lp + lambda_gt G_gt [N, G]; rows from `count` on mean nothing.

    Standardised, each term is divided by its standard deviation over all completed decisions so
    far, and one that never varied is left out. Neither is centered: advantages are.
    """
    gain_NxG, grounding_NxG = completed.gain_NxG, completed.grounding_NxG
    if settings.standardise_reward:
        gain_NxG = divide(gain_NxG, std(completed.gain_moments))
        grounding_NxG = divide(grounding_NxG, std(completed.grounding_moments))
    return gain_NxG + settings.lambda_gt * grounding_NxG
