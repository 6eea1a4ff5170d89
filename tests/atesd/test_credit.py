"""Eq. 8, gathered online, against sums over whole histories."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atesd.control.credit import (
    add_decision,
    collect,
    credit,
    due,
    init_completed,
    init_pending,
    rewards,
)
from atesd.settings import ControllerSettings

from . import controller_reference as reference

STEPS = 33
# Groups 1 and 3 in turn, so that each meets L < H, L = 1 and an L that is no multiple of H.
WINDOWS = [
    (look_ahead, hold, (1, 3)[i % 2])
    for i, (look_ahead, hold) in enumerate(itertools.product([1, 2, 4, 7, 20], [1, 3, 5]))
]


def gather(settings, losses, log_probs):
    """Feeds [STEPS, G] histories; returns per batch (any complete, t0, G_lp [G], G_gt [G])."""

    def batch(carry, inputs):
        pending, index = carry
        step, loss, log_prob = inputs
        decided = step % settings.hold == 0
        features = jnp.zeros((settings.groups, 6 + (settings.groups > 1)))
        added = add_decision(pending, index, step, features, jnp.full(settings.groups, step + 0.5))
        pending = jax.tree.map(lambda x, y: jnp.where(decided, x, y), added, pending)
        pending = credit(pending, settings, step, loss, log_prob)
        due_C = due(pending, settings, step)
        slot = jnp.argmax(due_C)
        g_gt = pending.grounding_CxG[slot] / pending.weight_CxG[slot]
        found = (due_C.sum(), pending.start_C[slot], pending.gain_CxG[slot], g_gt)
        return (pending, index + decided), found

    carry = (init_pending(settings), jnp.zeros((), jnp.int32))
    inputs = (jnp.arange(STEPS, dtype=jnp.int32), losses, log_probs)
    return jax.tree.map(np.asarray, jax.jit(lambda: jax.lax.scan(batch, carry, inputs)[1])())


@pytest.mark.parametrize(("look_ahead", "hold", "groups"), WINDOWS)
def test_equals_eq_8_on_random_histories(look_ahead, hold, groups):
    settings = ControllerSettings(look_ahead=look_ahead, hold=hold, groups=groups, discount=0.9)
    rng = np.random.default_rng(look_ahead * 100 + hold)
    losses = rng.normal(size=(STEPS, groups)).astype(np.float32)
    log_probs = -rng.random((STEPS, groups)).astype(np.float32)
    complete, start, g_lp, g_gt = gather(settings, losses, log_probs)
    # Complete are all windows that fit, each with the batch L after its start; no other ever.
    expected_starts = [t0 for t0 in range(0, STEPS, hold) if t0 + look_ahead <= STEPS - 1]
    assert set(complete) <= {0, 1}
    assert start[complete == 1].tolist() == expected_starts
    assert np.flatnonzero(complete).tolist() == [t0 + look_ahead for t0 in expected_starts]
    q = np.concatenate([np.full((1, groups), np.nan), log_probs])
    for t0, g in itertools.product(expected_starts, range(groups)):
        np.testing.assert_allclose(
            g_lp[t0 + look_ahead, g],
            reference.gain(losses[:, g], t0, look_ahead, 0.9),
            rtol=1e-5,
            atol=1e-6,
        )
        np.testing.assert_allclose(
            g_gt[t0 + look_ahead, g],
            reference.grounding(q[:, g], t0, look_ahead, 0.9),
            rtol=1e-5,
            atol=1e-6,
        )


def test_by_hand():
    settings = ControllerSettings(look_ahead=2, hold=5, discount=0.5)
    losses = np.full((STEPS, 1), 9.0, np.float32)
    losses[5:9, 0] = [4.0, 3.0, 1.0, 0.0]  # the fall to l_5 precedes the decision at 5
    log_probs = np.zeros((STEPS, 1), np.float32)
    log_probs[5:8, 0] = [-1.0, -4.0, -9.0]  # q_6, q_7, q_8
    complete, start, g_lp, g_gt = gather(settings, losses, log_probs)
    assert complete[7] == 1 and start[7] == 5
    np.testing.assert_allclose(g_lp[7], 1 + 0.5 * 2)
    np.testing.assert_allclose(g_gt[7], (-1 + 0.5 * -4) / 1.5)


def test_a_hundred_updates_complete_sixteen_decisions():
    settings = ControllerSettings()
    starts = range(0, 100, settings.hold)
    pending, complete = init_pending(settings), 0
    step_of = jax.jit(due, static_argnums=1)
    for step in range(100):
        if step in starts:
            pending = add_decision(pending, step // 5, step, jnp.zeros((1, 6)), jnp.ones(1))
        complete += int(step_of(pending, settings, step).sum())
    assert complete == 16


def test_a_bad_observation_counts_as_absent():
    settings = ControllerSettings(look_ahead=4, hold=5, discount=0.5)
    losses = np.full((STEPS, 1), 1.0, np.float32)
    losses[:5, 0] = [8.0, np.nan, 5.0, np.inf, 4.0]
    log_probs = np.full((STEPS, 1), -1.0, np.float32)
    log_probs[:4, 0] = [-2.0, np.nan, -4.0, -np.inf]
    complete, _, g_lp, g_gt = gather(settings, losses, log_probs)
    assert complete[4] == 1
    np.testing.assert_allclose(g_lp[4], 0.5 * 3 + 0.125 * 1)  # 8 to 5 at i = 2, 5 to 4 at i = 4
    np.testing.assert_allclose(g_gt[4], (-2 + 0.25 * -4) / 1.25)


def filled(settings, gains, groundings, weight=1.0):
    """The buffer after decisions with these terms [N, G]."""
    completed, pending = init_completed(settings), init_pending(settings)
    for gain, grounding in zip(gains, groundings, strict=True):
        pending = pending.replace(
            gain_CxG=pending.gain_CxG.at[0].set(gain),
            grounding_CxG=pending.grounding_CxG.at[0].set(grounding),
            weight_CxG=pending.weight_CxG.at[0].set(weight),
        )
        completed = collect(completed, pending, 0)
    return completed


def test_rewards_are_scaled_by_the_spread_of_all_decisions_and_groups():
    rng = np.random.default_rng(0)
    gains, groundings = rng.random((2, 4, 3)).astype(np.float32)
    groundings -= 1
    settings = ControllerSettings(groups=3, lambda_gt=0.7)
    completed = filled(settings, gains, groundings)
    expected = gains / gains.std() + 0.7 * groundings / groundings.std()
    np.testing.assert_allclose(rewards(completed, settings), expected, rtol=1e-4)
    raw = ControllerSettings(groups=3, lambda_gt=0.7, standardise_reward=False)
    np.testing.assert_allclose(rewards(completed, raw), gains + 0.7 * groundings, rtol=1e-5)


def test_a_term_that_never_varied_is_left_out():
    settings = ControllerSettings()
    gains = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    completed = filled(settings, gains, np.full((4, 1), -0.3, np.float32))
    np.testing.assert_allclose(rewards(completed, settings), gains / gains.std(), rtol=1e-5)
    nothing = filled(settings, np.zeros((4, 1)), np.zeros((4, 1)))
    assert not np.any(rewards(nothing, settings))


def test_a_decision_without_any_log_probability_is_judged_by_its_gain():
    settings = ControllerSettings()
    completed = filled(settings, [[1.0], [2.0]], [[-0.2], [-0.6]])
    empty = init_pending(settings)
    completed = collect(completed, empty.replace(gain_CxG=empty.gain_CxG + 3), 0)
    np.testing.assert_allclose(completed.grounding_NxG[2], -0.4, rtol=1e-6)
    assert int(completed.grounding_moments.count) == 2 and int(completed.gain_moments.count) == 3
