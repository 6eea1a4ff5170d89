"""The trajectory loss against NumPy; masks, padding and scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.divergence import DIVERGENCES
from distill.loss import trajectory_loss
from distill.scores import score_tokens
from distill.signal import Signal
from distill.trajectories import Source, Trajectories
from models.transformer import forward_hidden

from .test_divergence import numpy_divergence, softmax

STUDENT = models.ModelConfig("qwen3", 13, 16, 32, 2, 2, 1, 8, qk_norm=True)
TEACHER = models.ModelConfig("qwen2", 16, 24, 32, 1, 2, 2, 8, qkv_bias=True, tie_embeddings=True)


@pytest.fixture(scope="module")
def params():
    return models.init(jax.random.key(0), STUDENT), models.init(jax.random.key(1), TEACHER)


def make(seed, rows=3, width=9):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, width + 1, rows)
    present = np.arange(width) < lengths[:, None]
    likelihood = (rng.random((rows, width)) < 0.5) & present
    likelihood[:, 0] = False
    divergence = (rng.random((rows, width)) < 0.5) & present & ~likelihood
    divergence[:, 0] = False
    return Trajectories(
        tokens_BxT=jnp.asarray(rng.integers(0, 13, (rows, width)) * present, jnp.int32),
        source_BxT=jnp.asarray(np.where(present, Source.STUDENT, Source.PADDING), jnp.int32),
        likelihood_weights_BxT=jnp.asarray(likelihood, jnp.float32),
        divergence_weights_BxT=jnp.asarray(divergence, jnp.float32),
        positions_BxT=jnp.broadcast_to(jnp.arange(width), (rows, width)),
        segment_ids_BxT=jnp.asarray(present, jnp.int32),
    )


def expected(params, t, name, beta):
    p = softmax(np.asarray(models.forward(params[0], STUDENT, t.tokens_BxT), np.float64))
    q = np.asarray(models.forward(params[1], TEACHER, t.tokens_BxT), np.float64)[..., :13]
    q = softmax(q)
    likelihood = divergence = 0.0
    for b in range(p.shape[0]):
        for i in range(1, p.shape[1]):
            token = int(t.tokens_BxT[b, i])
            likelihood -= float(t.likelihood_weights_BxT[b, i]) * np.log(p[b, i - 1, token])
            if name:
                each = numpy_divergence(name, q[b, i - 1], p[b, i - 1], beta)
                divergence += float(t.divergence_weights_BxT[b, i]) * each
    return likelihood, divergence


@pytest.mark.parametrize("name", [None, *DIVERGENCES])
def test_equals_numpy(params, name):
    t = make(3)
    sums = trajectory_loss(params[0], STUDENT, t, params[1], TEACHER, name and Signal(name, 0.3))
    likelihood, divergence = expected(params, t, name, 0.3)
    assert float(sums.likelihood) == pytest.approx(likelihood, rel=1e-4)
    assert float(sums.divergence) == pytest.approx(divergence, rel=1e-4, abs=1e-5)
    count = float(t.likelihood_weights_BxT.sum())
    if name:
        count += float(t.divergence_weights_BxT.sum())
    assert float(sums.mean) == pytest.approx((likelihood + divergence) / count, rel=1e-4)


def test_padding_and_splitting_never_change_the_loss(params):
    t = make(4)

    def sums(t):
        return trajectory_loss(params[0], STUDENT, t, params[1], TEACHER, Signal())

    whole = sums(t)
    wider = sums(jax.tree.map(lambda x: jnp.pad(x, ((0, 2), (0, 5))), t))
    parts = [sums(jax.tree.map(lambda x, i=i: x[i : i + 1], t)) for i in range(3)]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    for other in (wider, added):
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(other), strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-5)


def test_nothing_to_train_on_is_no_loss_and_no_gradient(params):
    t = jax.tree.map(jnp.zeros_like, make(5))
    value, grads = jax.value_and_grad(lambda p: trajectory_loss(p, STUDENT, t).mean)(params[0])
    assert float(value) == 0
    assert all(not np.any(g) for g in jax.tree.leaves(grads))


def test_the_teacher_gets_no_gradient(params):
    t = make(6)

    def loss(teacher):
        return trajectory_loss(params[0], STUDENT, t, teacher, TEACHER, Signal("jsd")).mean

    assert all(not np.any(g) for g in jax.tree.leaves(jax.grad(loss)(params[1])))


def test_a_divergence_without_a_teacher_is_refused(params):
    with pytest.raises(ValueError, match="needs a teacher"):
        trajectory_loss(params[0], STUDENT, make(7), signal=Signal("jsd"))


@pytest.mark.parametrize("block_elements", [2**24, 13, 40])
def test_scores_equal_numpy_whatever_the_block(params, block_elements, monkeypatch):
    monkeypatch.setattr("distill.scores._BLOCK_ELEMENTS", block_elements)
    t = make(8)
    inputs, targets = t.tokens_BxT[:, :-1], t.tokens_BxT[:, 1:]
    hidden = forward_hidden(params[0], STUDENT, inputs), forward_hidden(params[1], TEACHER, inputs)
    scores = score_tokens(
        params[0], STUDENT, hidden[0], params[1], TEACHER, hidden[1], targets, entropy_top_k=5
    )
    p = softmax(np.asarray(models.forward(params[0], STUDENT, inputs), np.float64))
    q = softmax(np.asarray(models.forward(params[1], TEACHER, inputs), np.float64)[..., :13])
    chosen = np.take_along_axis(q, np.asarray(targets)[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores.nll, -np.log(chosen), rtol=1e-4)
    for name in DIVERGENCES:
        np.testing.assert_allclose(
            getattr(scores, name), numpy_divergence(name, q, p), rtol=1e-3, atol=1e-6
        )
    top = np.sort(q, -1)[..., ::-1][..., :5]
    top = top / top.sum(-1, keepdims=True)
    np.testing.assert_allclose(scores.entropy, -np.sum(top * np.log(top), -1), rtol=1e-4)
