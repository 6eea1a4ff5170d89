"""Signals: accepted exactly where the expected gradient is the divergence's."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses import estimators
from distill.losses.divergence import DIVERGENCES, TOP_K_OF, divergence, top_k_divergence
from distill.losses.signal import FORMS, SUPPORTS, Signal, token_divergence

VOCAB = 5
SAMPLED = [
    Signal("reverse_kl", support="sampled", form="advantage"),
    Signal("forward_kl", support="sampled", form="advantage"),
    Signal("jsd", 0.3, support="sampled", form="advantage"),
    Signal("jsd", 0.0, support="sampled", form="advantage"),
    Signal("jsd", 1.0, support="sampled", form="advantage"),
    Signal("reverse_kl", support="sampled", estimator="k2"),
    Signal("jsd", 1.0, support="sampled", estimator="k2"),
    Signal("forward_kl", support="sampled", estimator="k3"),
    Signal("jsd", 0.0, support="sampled", estimator="k3"),
]


def draw(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1.5, (2, VOCAB)))


def per_token(signal, teacher_V, student_V):
    """What every token of the vocabulary would add, had it been drawn [V]."""
    wide = [jnp.broadcast_to(x, (1, VOCAB, VOCAB)) for x in (teacher_V, student_V)]
    return token_divergence(signal, *wide, jnp.arange(VOCAB)[None], jnp.ones((1, VOCAB)))[0]


def expected_value_and_gradient(signal, teacher, student):
    p = jax.nn.softmax(student)
    jacobian_VxV = jax.jacobian(lambda s: per_token(signal, teacher, s))(student)
    return p @ per_token(signal, teacher, student), p @ jacobian_VxV


def exact(signal, teacher, student):
    if signal.support == "top_k":
        return top_k_divergence(
            signal.divergence, teacher, student, signal.top_k, signal.top_k_of, signal.jsd_beta
        )
    return divergence(signal.divergence, teacher, student, signal.jsd_beta)


@pytest.mark.parametrize(
    "signal",
    [
        *SAMPLED,
        *(Signal(name, 0.3) for name in DIVERGENCES),
        *(
            Signal(name, 0.3, "top_k", 2, of)
            for name, of in zip(DIVERGENCES, TOP_K_OF, strict=True)
        ),
    ],
    ids=str,
)
def test_value_and_gradient_are_the_divergences_in_expectation(signal):
    with jax.enable_x64(True):
        for seed in range(3):
            teacher, student = draw(seed)
            value, grad = expected_value_and_gradient(signal, teacher, student)
            want, want_grad = jax.value_and_grad(lambda s, t=teacher: exact(signal, t, s))(student)
            np.testing.assert_allclose(value, want, rtol=1e-9)
            np.testing.assert_allclose(grad, want_grad, rtol=1e-9, atol=1e-12)


def gradient_is_right(name, beta, support, form, estimator):
    """Enumerates what the combination would do, without asking `Signal`."""
    teacher, student = draw(7)
    p, log_p = jax.nn.softmax(student), jax.nn.log_softmax(student)

    def log_ratio(s):
        return jax.nn.log_softmax(teacher) - jax.nn.log_softmax(s)

    want = jax.grad(lambda s: divergence(name, teacher, s, beta))(student)
    if form == "advantage":
        advantage_V = (
            estimators.advantage(name, log_ratio(student), beta)
            if support == "sampled"
            else jnp.full(VOCAB, divergence(name, teacher, student, beta))
        )
        got = -(p * advantage_V) @ (jnp.eye(VOCAB) - jnp.exp(log_p))
    else:
        got = p @ jax.jacobian(lambda s: getattr(estimators, estimator)(log_ratio(s)))(student)
    return np.allclose(got, want, rtol=1e-6)


def accepted(*args):
    name, beta, support, form, estimator = args
    try:
        Signal(name, beta, support, form=form, estimator=estimator)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_refused_exactly_where_the_gradient_is_zero_or_wrong(name, beta):
    with jax.enable_x64(True):
        for support in SUPPORTS:
            case = (name, beta, support, "advantage", "")
            assert accepted(*case) == gradient_is_right(*case), case
        for estimator in estimators.ESTIMATORS:
            case = (name, beta, "sampled", "loss", estimator)
            assert accepted(*case) == gradient_is_right(*case), case


def test_an_estimator_is_needed_by_sampled_losses_and_by_nothing_else():
    for support, form in itertools.product(SUPPORTS, FORMS):
        if (support, form) == ("sampled", "loss"):
            assert not accepted("reverse_kl", 0.5, support, form, "")
        else:
            for estimator in estimators.ESTIMATORS:
                assert not accepted("reverse_kl", 0.5, support, form, estimator)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"divergence": "kl"}, r"signal.divergence='kl': choose one of"),
        ({"support": "all"}, r"signal.support='all': choose one of"),
        ({"top_k_of": "both"}, r"signal.top_k_of='both': choose one of"),
        ({"form": "reward"}, r"signal.form='reward': choose one of"),
        ({"estimator": "k4"}, r"signal.estimator='k4': choose one of"),
        ({"jsd_beta": 1.5}, r"signal.jsd_beta=1.5 must lie in \[0, 1\]"),
        ({"jsd_beta": float("nan")}, r"signal.jsd_beta=nan must lie in"),
        ({"top_k": 0}, r"signal.top_k=0 must be at least 1"),
        ({"form": "advantage"}, r"signal.form.*signal.support='full'.*zero gradient"),
        ({"form": "advantage", "support": "top_k"}, r"signal.form.*zero gradient"),
        ({"support": "sampled"}, r"signal.estimator=''.*needs an estimator.*'k2'"),
        ({"support": "sampled", "estimator": "k1"}, r"signal.estimator='k1'.*teacher drops out"),
        ({"support": "sampled", "estimator": "k3"}, r"signal.estimator='k3'.*forward KL's"),
        (
            {"support": "sampled", "estimator": "k2", "divergence": "forward_kl"},
            r"signal.estimator='k2'.*reverse KL's.*'k3'",
        ),
        (
            {"support": "sampled", "estimator": "k3", "divergence": "jsd"},
            r"signal.divergence='jsd'.*no estimator.*'advantage'",
        ),
        ({"estimator": "k2"}, r"signal.estimator='k2'.*nothing reads it"),
    ],
)
def test_refusals_name_the_field_and_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        Signal(**fields)


@pytest.mark.parametrize(
    ("base", "field", "value"),
    [
        (Signal(), "divergence", "forward_kl"),
        (Signal("jsd"), "jsd_beta", 0.2),
        (Signal(), "support", "top_k"),
        (Signal(support="top_k", top_k=2), "top_k", 3),
        (Signal(support="top_k", top_k=2), "top_k_of", "teacher"),
        (Signal(support="top_k", top_k=2), "top_k_of", "union"),
        (Signal(support="top_k", top_k=2, top_k_of="teacher"), "top_k_of", "union"),
    ],
)
def test_every_field_changes_the_loss(base, field, value):
    teacher, student = draw(1)
    base = dataclasses.replace(base, top_k=min(base.top_k, 3))
    changed = dataclasses.replace(base, **{field: value})
    a, b = (np.asarray(per_token(s, teacher, student)) for s in (base, changed))
    assert not np.allclose(a, b, rtol=1e-3)


def test_k2_and_k3_are_the_advantages_d_and_u_minus_1_token_by_token():
    teacher, student = draw(1)
    grads = {
        (s.divergence, s.form): np.asarray(
            jax.jacobian(lambda x, s=s: per_token(s, teacher, x))(student)
        )
        for s in SAMPLED
        if s.divergence != "jsd"
    }
    for name in ("reverse_kl", "forward_kl"):
        np.testing.assert_allclose(
            grads[name, "loss"], grads[name, "advantage"], rtol=1e-4, atol=1e-6
        )
    assert not np.allclose(grads["reverse_kl", "loss"], grads["forward_kl", "loss"], rtol=1e-2)


@pytest.mark.parametrize("signal", SAMPLED, ids=str)
def test_sampled_values_at_tokens_without_a_weight_cannot_overflow(signal):
    teacher, student = jnp.zeros((1, 2, 3)), jnp.array([[[0.0, 0.0, -500.0], [1.0, 0.0, 0.0]]])
    tokens, weights = jnp.array([[2, 0]]), jnp.array([[0.0, 1.0]])

    def loss(s):
        return jnp.sum(weights * token_divergence(signal, teacher, s, tokens, weights))

    value, grad = jax.value_and_grad(loss)(student)
    assert np.isfinite(value) and np.all(np.isfinite(grad))
    assert not np.any(grad[0, 0]) and np.any(grad[0, 1])
