"""Logits at minus infinity, of masked or padded ids, in every divergence, support and estimator."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses.divergence import (
    DIVERGENCES,
    TOP_K_OF,
    divergence,
    top_k_divergence,
    top_k_entropy,
)
from distill.losses.estimators import advantage, sampled_divergence
from distill.losses.signal import Signal, token_divergence
from distill.losses.teacher_scores import kept_divergence
from distill.trajectories import TeacherScores

VOCAB, BETA = 7, 0.3
# Which ids are masked: of the teacher, of the student.
MASKS = {
    "both alike": ((5, 6), (5, 6)),
    "the teacher's": ((1, 6), ()),
    "the student's": ((), (1, 6)),
    "apart": ((0, 6), (2, 6)),
    "all but one": ((0, 1, 2, 4, 5, 6), (0, 1, 2, 4, 5, 6)),
}
SAMPLED = {
    "reverse_kl": Signal("reverse_kl", support="sampled", estimator="k2"),
    "forward_kl": Signal("forward_kl", support="sampled", estimator="k3"),
    "jsd": Signal("jsd", BETA, support="sampled", form="advantage"),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(masks: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of teacher and student."""
    logits = np.random.default_rng(0).normal(0, 2, (2, VOCAB))
    for row, masked in zip(logits, masks, strict=True):
        row[list(masked)] = -np.inf
    return logits[0], logits[1]


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def kl(a: np.ndarray, b: np.ndarray) -> float:
    """0 log 0 is 0; mass where there is none is infinitely far."""
    if np.any((a > 0) & (b == 0)):
        return np.inf
    there = a > 0
    return float(np.sum(a[there] * np.log(a[there] / b[there])))


def expected(name: str, q: np.ndarray, p: np.ndarray) -> float:
    if name == "forward_kl":
        return kl(q, p)
    if name == "reverse_kl":
        return kl(p, q)
    m = BETA * q + (1 - BETA) * p
    return BETA * kl(q, m) + (1 - BETA) * kl(p, m)


def bucketed(q: np.ndarray, p: np.ndarray, k: int, of: str) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest of each set, and all others together."""
    kept = {"student": {*np.argsort(-p, kind="stable")[:k]}}
    kept["teacher"] = {*np.argsort(-q, kind="stable")[:k]}
    kept["union"] = kept["student"] | kept["teacher"]
    ids = sorted(kept[of])
    rest = sorted({*range(VOCAB)} - {*ids})
    return tuple(np.append(x[ids], x[rest].sum()) for x in (q, p))  # type: ignore[return-value]


def check(function, reference, teacher: np.ndarray, student: np.ndarray) -> None:
    """Value and gradient; masked logits have a gradient of 0."""
    value, grad = jax.value_and_grad(function)(jnp.asarray(student))
    want = reference(probabilities(teacher), probabilities(student))
    if not np.isfinite(want):
        assert value == np.inf
        return
    assert float(value) == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert np.all(np.isfinite(grad))
    for i in range(VOCAB):
        if student[i] == -np.inf:
            assert grad[i] == 0
            continue
        ends = [student + sign * 1e-6 * np.eye(VOCAB)[i] for sign in (1, -1)]
        up, down = (reference(probabilities(teacher), probabilities(x)) for x in ends)
        assert float(grad[i]) == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_of_the_whole_vocabulary(name, masks):
    teacher, student = draw(masks)
    check(
        lambda s: divergence(name, jnp.asarray(teacher), s, BETA),
        lambda q, p: expected(name, q, p),
        teacher,
        student,
    )


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_of_the_likeliest_tokens_and_one_bucket(name, masks):
    """The sets hold masked tokens where k is more than what is left; then the bucket may be empty."""
    teacher, student = draw(masks)
    for k, of in itertools.product((1, 3, 5, 6, VOCAB), TOP_K_OF):
        check(
            lambda s, k=k, of=of: top_k_divergence(name, jnp.asarray(teacher), s, k, of, BETA),
            lambda q, p, k=k, of=of: expected(name, *bucketed(q, p, k, of)),
            teacher,
            student,
        )


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_of_kept_scores(name, masks):
    teacher, student = draw(masks)
    log_q = np.log(probabilities(teacher), where=teacher > -np.inf, out=np.full(VOCAB, -np.inf))
    for k in (1, 3, 6):
        ids = np.argsort(-log_q, kind="stable")[:k]
        rest = np.exp(np.delete(log_q, ids)).sum()
        scores = TeacherScores(
            sampled_BxT=jnp.zeros((1, 1)),
            ids_BxTxK=jnp.asarray(ids, jnp.int32)[None, None],
            log_probs_BxTxK=jnp.asarray(log_q[ids])[None, None],
            tail_BxT=jnp.full((1, 1), np.log(rest) if rest else -np.inf),
        )
        signal = Signal(name, BETA, support="top_k", top_k=k, top_k_of="teacher")
        check(
            lambda s, c=scores, g=signal: kept_divergence(
                g, c, s[None, None], jnp.ones((1, 1), int), jnp.ones((1, 1))
            )[0, 0],
            lambda q, p, k=k: expected(name, *bucketed(q, p, k, "teacher")),
            teacher,
            student,
        )


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", SAMPLED)
def test_of_the_sampled_token(name, masks):
    """In expectation over what the student can draw, value and gradient are the divergence's."""
    teacher, student = draw(masks)
    p = probabilities(student)
    total, slope = 0.0, np.zeros(VOCAB)
    for token in np.flatnonzero(p):

        def at(logits, token=token):
            signal, tokens = SAMPLED[name], jnp.full((1, 1), token)
            logits_2 = jnp.asarray(teacher)[None, None], logits[None, None]
            return token_divergence(signal, *logits_2, tokens, jnp.ones((1, 1)))[0, 0]

        value, grad = jax.value_and_grad(at)(jnp.asarray(student))
        assert not np.isnan(value) and np.all(np.isfinite(grad))
        total, slope = total + p[token] * float(value), slope + p[token] * np.asarray(grad)
    q = probabilities(teacher)
    # Of the teacher's mass where the student has none no sample tells: f(u) then lacks a part.
    if np.any((q > 0) & (p == 0)):
        return
    assert total == pytest.approx(expected(name, q, p), rel=1e-9)
    if np.isfinite(total):
        exact = jax.grad(lambda s: divergence(name, jnp.asarray(teacher), s, BETA))
        np.testing.assert_allclose(slope, exact(jnp.asarray(student)), rtol=1e-9, atol=1e-12)


def test_a_token_that_the_teacher_has_masked():
    """u = 0: what f and A of the module's table tend to."""
    d = jnp.asarray(-jnp.inf)
    assert sampled_divergence("reverse_kl", d) == jnp.inf
    assert sampled_divergence("forward_kl", d) == 1
    assert float(sampled_divergence("jsd", d, BETA)) == pytest.approx(-0.7 * np.log(0.7))
    assert advantage("forward_kl", d) == -1
    assert float(advantage("jsd", d, BETA)) == pytest.approx(0.7 * np.log(0.7))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_masked_token_without_a_weight_says_nothing(name):
    """It may be a prompt's, or one that another wrote."""
    teacher, student = (jnp.asarray(x)[None, None] for x in draw(MASKS["both alike"]))

    def at(logits):
        tokens, weight = jnp.full((1, 1), 6), jnp.zeros((1, 1))
        return token_divergence(SAMPLED[name], teacher, logits, tokens, weight)[0, 0]

    value, grad = jax.value_and_grad(at)(student)
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros((1, 1, VOCAB)))


@pytest.mark.parametrize("k", [1, 3, 20])
def test_entropy_of_the_likeliest(k):
    logits = draw(MASKS["all but one"])[0]
    assert float(top_k_entropy(jnp.asarray(logits), k)) == 0
    two = jnp.asarray([0.0, 0.0, -jnp.inf, -jnp.inf])
    assert float(top_k_entropy(two, 2 + k)) == pytest.approx(np.log(2))
