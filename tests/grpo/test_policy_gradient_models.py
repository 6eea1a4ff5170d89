"""The surrogate of models: three policies, whose gradient it is, and what it equals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distill.losses.chunked
import distill.losses.log_probs
from distill.losses.trajectory_loss import trajectory_loss
from distill.trajectories import Source, Trajectories
from grpo.policy_gradient import GrpoSettings, policy_gradient_loss, surrogate_sums

from ..distill.losses.test_loss import STUDENT, look_up
from .test_policy_gradient import numpy_sums


@pytest.fixture
def lookup(monkeypatch):
    look_up(monkeypatch, distill.losses.log_probs, distill.losses.chunked)
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(0, 1, (8, 8)), jnp.float32) for _ in range(3)]


def rows(seed, vocab=8):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 8, 4)
    at = np.arange(7)[None]
    response = (at >= 2) & (at < lengths[:, None])
    shape = response.shape
    return Trajectories(
        tokens_BxT=jnp.asarray(rng.integers(0, vocab, shape), jnp.int32),
        source_BxT=jnp.asarray(np.where(response, Source.STUDENT, Source.PROMPT), jnp.int32),
        likelihood_weights_BxT=jnp.asarray(response, jnp.float32),
        divergence_weights_BxT=jnp.zeros(shape),
        positions_BxT=jnp.broadcast_to(jnp.arange(7), shape),
        segment_ids_BxT=jnp.ones(shape, jnp.int32),
    )


ADVANTAGES = jnp.array([1.0, -1.0, 0.5, -2.0])


@pytest.mark.parametrize("vocab", [None, 5])
def test_the_loss_of_three_policies_equals_numpy(lookup, vocab):
    s = GrpoSettings(normalise="token", kl_weight=0.4)
    t = rows(0, vocab or 8)
    sums = policy_gradient_loss(
        lookup[0], STUDENT, s, t, ADVANTAGES, lookup[1], lookup[2], STUDENT, vocab
    )
    tokens = np.asarray(t.tokens_BxT)

    def of(table):
        logits = np.asarray(table, np.float64)[:, :vocab]
        log_p = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
        return log_p[tokens[:, :-1], tokens[:, 1:]]

    weights = np.asarray(t.likelihood_weights_BxT)[:, 1:]
    want = numpy_sums(s, of(lookup[0]), of(lookup[1]), ADVANTAGES, weights, of(lookup[2]))
    got = (sums.surrogate, sums.kl, sums.count, sums.clipped)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert want[3] > 0


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_blocks_equal_all_logits_at_once(lookup, normalise, monkeypatch):
    s = GrpoSettings(normalise=normalise, kl_weight=0.4)
    t = rows(4)

    def dense(table):
        new, old, reference = (
            jnp.take_along_axis(
                jax.nn.log_softmax(x)[t.tokens_BxT[:, :-1]], t.tokens_BxT[:, 1:, None], axis=-1
            )[..., 0]
            for x in (table, *lookup[1:])
        )
        weights = t.likelihood_weights_BxT[:, 1:]
        return surrogate_sums(s, new, old, ADVANTAGES, weights, reference).mean

    def chunked(table):
        arguments = t, ADVANTAGES, lookup[1], lookup[2], STUDENT
        return policy_gradient_loss(table, STUDENT, s, *arguments).mean

    with jax.default_matmul_precision("highest"):
        want = jax.value_and_grad(dense)(lookup[0])
        for elements in (2**20, 4 * 8 * 4, 1):
            monkeypatch.setattr("distill.losses.chunked._BLOCK_ELEMENTS", elements)
            value, gradient = jax.value_and_grad(chunked)(lookup[0])
            assert float(value) == pytest.approx(float(want[0]), rel=1e-5)
            scale = float(np.abs(want[1]).max())
            np.testing.assert_allclose(gradient, want[1], rtol=1e-5, atol=1e-5 * scale)


def test_fresh_weights_are_old_ones_that_are_equal(lookup):
    def step(old):
        def loss(table):
            return policy_gradient_loss(
                table, STUDENT, GrpoSettings(), rows(1), ADVANTAGES, old_params=old
            ).mean

        return jax.value_and_grad(loss)(lookup[0])

    fresh, equal, older = step(None), step(lookup[0]), step(lookup[1])
    assert float(fresh[0]) == float(equal[0])
    np.testing.assert_array_equal(fresh[1], equal[1])
    assert np.any(fresh[1]) and not np.allclose(fresh[1], older[1], rtol=1e-2)


def test_neither_old_nor_reference_policy_gets_a_gradient(lookup):
    def loss(old, reference):
        return policy_gradient_loss(
            lookup[0], STUDENT, GrpoSettings(kl_weight=1.0), rows(2), ADVANTAGES, old, reference,
            STUDENT,
        ).mean  # fmt: skip

    assert not any(np.any(g) for g in jax.grad(loss, argnums=(0, 1))(*lookup[1:]))


def test_without_a_penalty_the_reference_is_not_run(lookup):
    def loss(reference):
        return policy_gradient_loss(
            lookup[0], STUDENT, GrpoSettings(), rows(2), ADVANTAGES, None, reference, STUDENT
        )

    assert loss(lookup[2]).kl is None
    with pytest.raises(ValueError, match=r"grpo\.kl_weight=0\.5 needs a reference policy"):
        policy_gradient_loss(lookup[0], STUDENT, GrpoSettings(kl_weight=0.5), rows(2), ADVANTAGES)


def test_the_gradient_is_that_of_the_weighted_likelihood(lookup):
    t = rows(3)
    weighted = t.replace(likelihood_weights_BxT=t.likelihood_weights_BxT * ADVANTAGES[:, None])

    def surrogate(table):
        token = GrpoSettings(normalise="token")
        return policy_gradient_loss(table, STUDENT, token, t, ADVANTAGES).total

    ours = jax.grad(surrogate)(lookup[0])
    theirs = jax.grad(lambda p: trajectory_loss(p, STUDENT, weighted).total)(lookup[0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.any(ours)
