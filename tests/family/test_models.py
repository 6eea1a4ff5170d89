"""The loss with transformers: GRPO's and OPD's own losses, and rows that see one another or do not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.packing import pack
from distill.train.state import create_state
from family import make_planned_step
from family.train import rewarded
from grpo.policy_gradient import GrpoSettings, policy_gradient_loss

from .batches import STUDENT, TEACHER, VOCAB, make, objective, parameters, reading
from .drawn import GROUP

STEP = jnp.asarray(3)
PARAMS = parameters()


@pytest.mark.parametrize("normalise", ["sequence", "token"])
@pytest.mark.parametrize("lagging", [False, True])
def test_grpo_as_a_plan_is_grpo_to_the_last_bit(normalise, lagging):
    ours = objective("plan_grpo", normalise=normalise)
    batch = rewarded(ours, reading("plan_grpo", make(1)), GROUP)
    settings = GrpoSettings(normalise=normalise)
    old = PARAMS[2] if lagging else None

    def published(params):
        sums = policy_gradient_loss(
            params, STUDENT, settings, batch.trajectories, batch.advantage_B, old, vocab_size=VOCAB
        )
        return sums.mean

    def planned(params):
        return ours(params, old, None, STEP, batch).mean

    (a, one), (b, other) = (jax.jit(jax.value_and_grad(f))(PARAMS[0]) for f in (published, planned))
    assert float(a) == pytest.approx(float(b), rel=1e-6, abs=1e-7)
    assert float(optax.tree.norm(one)) > 1e-3
    if lagging:  # ratios are formed in another program than there
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), one, other
        )
    else:
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_opd_as_a_plan_is_the_sampled_signal():
    ours = objective("plan_opd", normalise="token")
    batch = reading("plan_opd", make(1))
    t = batch.trajectories
    taught = t.replace(divergence_weights_BxT=t.likelihood_weights_BxT, likelihood_weights_BxT=0 * t.likelihood_weights_BxT)  # fmt: skip
    signal = Signal("reverse_kl", support="sampled", form="advantage")
    one = jax.jit(
        jax.grad(lambda p: trajectory_loss(p, STUDENT, taught, PARAMS[1], TEACHER, signal).mean)
    )(PARAMS[0])
    other = jax.jit(jax.grad(lambda p: ours(p, None, PARAMS[1], STEP, batch).mean))(PARAMS[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), one, other)


def assert_equal_gradients(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("name", ["tip", pytest.param("curve", marks=pytest.mark.slow)])
def test_packed_responses_do_not_see_each_other(name):
    """In attention, nor in the ranks and places of a plan."""
    with jax.default_matmul_precision("highest"):
        ours = objective(name, normalise="sequence")
        batch = reading(name, make(2))
        t = pack(batch.trajectories, 18)
        alone, together = (
            jax.jit(jax.grad(lambda p, b=b: ours(p, None, PARAMS[1], STEP, b).mean))(PARAMS[0])
            for b in (batch, batch.replace(trajectories=t))
        )
    assert t.tokens_BxT.shape[0] < batch.trajectories.tokens_BxT.shape[0]
    assert_equal_gradients(alone, together)


@pytest.mark.slow
def test_parts_of_a_batch_give_the_update_of_the_whole():
    """SCOPE compares responses that lie in several parts."""
    batch = reading("scope", make(3, rows=4 * GROUP))
    optimizer = optax.sgd(0.1, momentum=0.9)

    def run(parts):
        step = make_planned_step(objective("scope"), optimizer, GROUP, parts)
        return jax.jit(step)(create_state(PARAMS[0], optimizer), PARAMS[1], batch)

    with jax.default_matmul_precision("highest"):
        (whole, metrics), (several, found) = run(1), run(4)
    np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)
    assert_equal_gradients(whole.opt_state, several.opt_state)
