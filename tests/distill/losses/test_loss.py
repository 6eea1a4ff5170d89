"""The trajectory loss against NumPy; masks, padding and scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distill.losses.chunked
import models
from distill.losses.chunked import Readout, readout
from distill.losses.divergence import DIVERGENCES
from distill.losses.scores import score_tokens
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.trajectories import Source, Trajectories
from models.transformer import forward_hidden

from .test_divergence import numpy_divergence, softmax

STUDENT = models.ModelConfig("qwen3", 13, 16, 32, 2, 2, 1, 8, qk_norm=True)
TEACHER = models.ModelConfig("qwen2", 16, 24, 32, 1, 2, 2, 8, qkv_bias=True, tie_embeddings=True)
FORWARD = jax.jit(models.forward, static_argnums=1)
HIDDEN = jax.jit(forward_hidden, static_argnums=1)


@pytest.fixture(scope="module")
def params():
    """Drawn by NumPy: compiling `models.init` would take longer than the tests."""
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(
            lambda a: jnp.asarray(rng.normal(0, 0.4, a.shape), a.dtype), models.abstract(config)
        )
        for config in (STUDENT, TEACHER)
    ]


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
    p = softmax(np.asarray(FORWARD(params[0], STUDENT, t.tokens_BxT), np.float64))
    q = np.asarray(FORWARD(params[1], TEACHER, t.tokens_BxT), np.float64)[..., :13]
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
    signal = Signal(name, 0.3) if name else None
    loss = jax.jit(trajectory_loss, static_argnums=(1, 4, 5))
    sums = loss(params[0], STUDENT, t, params[1], TEACHER, signal)
    likelihood, divergence = expected(params, t, name, 0.3)
    assert float(sums.likelihood) == pytest.approx(likelihood, rel=1e-4)
    assert float(sums.divergence) == pytest.approx(divergence, rel=1e-4, abs=1e-5)
    count = float(t.likelihood_weights_BxT.sum())
    if name:
        count += float(t.divergence_weights_BxT.sum())
    assert float(sums.mean) == pytest.approx((likelihood + divergence) / count, rel=1e-4)


def test_padding_and_splitting_never_change_the_loss(params):
    t = make(4)
    sums = jax.jit(
        lambda t: trajectory_loss(params[0], STUDENT, t, params[1], TEACHER, Signal("jsd"))
    )
    whole = sums(t)
    wider = sums(jax.tree.map(lambda x: jnp.pad(x, ((0, 2), (0, 5))), t))
    parts = [sums(jax.tree.map(lambda x, i=i: x[i : i + 1], t)) for i in range(3)]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    for other in (wider, added):
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(other), strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-5)


def look_up(monkeypatch, *modules):
    """Makes models tables [N, V] of logits by the token before: exact, and quick to compile."""
    monkeypatch.setattr(
        models,
        "forward_hidden",
        lambda table, _, tokens, *__: jax.nn.one_hot(tokens, table.shape[0], dtype=table.dtype),
    )
    for module in modules:
        monkeypatch.setattr(
            module, "readout", lambda table, config, hidden: Readout(hidden, table.T, config)
        )


@pytest.fixture
def lookup(monkeypatch):
    look_up(monkeypatch, distill.losses.chunked)
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(0, 1, (16, v)), jnp.float32) for v in (13, 16)]


SIGNALS = [
    Signal("forward_kl"),
    Signal("jsd", 0.3, "top_k", 4, "union"),
    Signal("reverse_kl", support="sampled", form="advantage"),
    Signal("forward_kl", support="sampled", estimator="k3"),
]


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_masks_padding_and_accumulation_change_neither_loss_nor_gradient(lookup, signal):
    """Micro-batches of very different numbers of tokens, added up and divided by the global count."""
    student, teacher = lookup
    t = make(4, rows=4)

    @jax.jit
    def total(t):
        """Sum of the loss, its gradient, and the count."""

        def fn(params):
            sums = trajectory_loss(params, STUDENT, t, teacher, TEACHER, signal)
            return sums.mean * sums.tokens, sums.tokens

        (value, count), grad = jax.value_and_grad(fn, has_aux=True)(student)
        return value, grad, count

    whole = total(t)
    assert np.any(whole[1])
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 2), (0, 5))), t)
    there = jnp.pad(jnp.ones_like(t.tokens_BxT), ((0, 2), (0, 5)))
    masked = padded.replace(tokens_BxT=jnp.where(there, padded.tokens_BxT, 12))
    # Micro-batches that are filled up with empty rows.
    rows = jnp.arange(4)[:, None]
    parts = [total(jax.tree.map(lambda x, k=k: x * k, t)) for k in (rows < 1, rows >= 1)]
    assert parts[0][2] != parts[1][2]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    for other in (total(padded), total(masked), added):
        for a, b in zip(whole, other, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("signal", SIGNALS[1:3], ids=str)
def test_signals_run_over_the_ids_both_heads_have(lookup, signal):
    """A padded head changes nothing, whichever model has it."""
    student, teacher = lookup
    t = make(4)

    def grad(student_width, teacher_width):
        configs = [STUDENT.replace(vocab_size=n) for n in (student_width, teacher_width)]
        tables = [x[:, :n] for x, n in zip(wide, (student_width, teacher_width), strict=True)]
        # The likelihood runs over the whole head, and is left out here.
        only = t.replace(likelihood_weights_BxT=jnp.zeros_like(t.likelihood_weights_BxT))
        args = (only, tables[1], configs[1], signal)
        loss = jax.value_and_grad(lambda p: trajectory_loss(p, configs[0], *args).mean)
        return jax.jit(loss)(tables[0])

    wide = [jnp.pad(student, ((0, 0), (0, 3))), teacher]
    value, grads = grad(13, 13)
    for widths in ((16, 13), (13, 16)):
        other_value, other_grads = grad(*widths)
        assert float(other_value) == pytest.approx(float(value), rel=1e-6)
        np.testing.assert_allclose(other_grads[:, :13], grads, rtol=1e-5, atol=1e-8)
        assert not np.any(other_grads[:, 13:])


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_the_teacher_gets_no_gradient(lookup, signal):
    student, teacher = lookup

    def loss(teacher):
        return trajectory_loss(student, STUDENT, make(6), teacher, TEACHER, signal).mean

    assert not np.any(jax.grad(loss)(teacher))


def test_a_sampled_signal_reads_the_token_that_was_drawn(lookup):
    student, teacher = lookup
    t = make(6)
    signal = Signal("reverse_kl", support="sampled", form="advantage")
    sums = trajectory_loss(student, STUDENT, t, teacher, TEACHER, signal)
    expected = 0.0
    tokens, weights = np.asarray(t.tokens_BxT), np.asarray(t.divergence_weights_BxT)
    p, q = softmax(np.asarray(student)), softmax(np.asarray(teacher)[:, :13])
    for b, i in np.argwhere(weights):
        u = q[tokens[b, i - 1], tokens[b, i]] / p[tokens[b, i - 1], tokens[b, i]]
        expected += u - 1 - np.log(u)
    assert float(sums.divergence) == pytest.approx(expected, rel=1e-4)


def test_nothing_to_train_on_is_no_loss_and_no_gradient(params):
    t = jax.tree.map(jnp.zeros_like, make(5))
    loss = jax.jit(jax.value_and_grad(lambda p: trajectory_loss(p, STUDENT, t).mean))
    value, grads = loss(params[0])
    assert float(value) == 0
    assert all(not np.any(g) for g in jax.tree.leaves(grads))


def test_a_divergence_without_a_teacher_is_refused(params):
    with pytest.raises(ValueError, match=r"'jsd'.*needs a teacher"):
        trajectory_loss(params[0], STUDENT, make(7), signal=Signal("jsd"))


@pytest.mark.parametrize("block_elements", [2**24, 13, 40])
def test_scores_equal_numpy_whatever_the_block(params, block_elements, monkeypatch):
    monkeypatch.setattr("distill.losses.chunked._BLOCK_ELEMENTS", block_elements)
    t = make(8)
    inputs, targets = t.tokens_BxT[:, :-1], t.tokens_BxT[:, 1:]
    hidden = HIDDEN(params[0], STUDENT, inputs), HIDDEN(params[1], TEACHER, inputs)
    both = zip(params, (STUDENT, TEACHER), hidden, strict=True)
    scores = score_tokens(*(readout(*model) for model in both), targets, entropy_top_k=5)
    p = softmax(np.asarray(FORWARD(params[0], STUDENT, t.tokens_BxT), np.float64))[:, :-1]
    q = softmax(np.asarray(FORWARD(params[1], TEACHER, t.tokens_BxT), np.float64)[:, :-1, :13])
    chosen = np.take_along_axis(q, np.asarray(targets)[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores.nll, -np.log(chosen), rtol=1e-4)
    for name in DIVERGENCES:
        np.testing.assert_allclose(
            getattr(scores, name), numpy_divergence(name, q, p), rtol=1e-3, atol=1e-6
        )
    top = np.sort(q, -1)[..., ::-1][..., :5]
    top = top / top.sum(-1, keepdims=True)
    np.testing.assert_allclose(scores.entropy, -np.sum(top * np.log(top), -1), rtol=1e-4)
