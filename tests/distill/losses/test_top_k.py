"""Top-k with a tail bucket against NumPy, the full divergence and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses.divergence import DIVERGENCES, TOP_K_OF, divergence, top_k_divergence

from .test_divergence import numpy_divergence, softmax

VOCAB = 7


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(seed, rows=3):
    return np.random.default_rng(seed).normal(0, 2, (2, rows, VOCAB))


def numpy_top_k(name, teacher, student, k, top_k_of, beta):
    """One row: the divergence of the buckets. Where the tail is empty, there is no bucket."""
    q, p = softmax(teacher), softmax(student)
    kept = {"student": {*np.argsort(-p)[:k]}, "teacher": {*np.argsort(-q)[:k]}}
    kept["union"] = kept["student"] | kept["teacher"]
    ids = sorted(kept[top_k_of])
    rest = sorted({*range(len(p))} - {*ids})
    q, p = (np.append(x[ids], x[rest].sum() if rest else []) for x in (q, p))
    return numpy_divergence(name, q, p, beta)


@pytest.mark.parametrize("top_k_of", TOP_K_OF)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_values_equal_numpy_and_bound_the_full_divergence_from_below(name, top_k_of):
    teacher, student = draw(0, rows=20)
    full = divergence(name, jnp.asarray(teacher), jnp.asarray(student), 0.3)
    before = np.zeros(20)
    for k in (1, 3, 6, VOCAB):
        got = top_k_divergence(name, jnp.asarray(teacher), jnp.asarray(student), k, top_k_of, 0.3)
        expected = [
            numpy_top_k(name, t, s, k, top_k_of, 0.3) for t, s in zip(teacher, student, strict=True)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
        assert np.all(before <= got + 1e-12)  # finer buckets see more
        before = np.asarray(got)
    np.testing.assert_allclose(before, full, rtol=1e-12)


@pytest.mark.parametrize("k", [VOCAB, 1000])
@pytest.mark.parametrize("top_k_of", TOP_K_OF)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_k_of_the_whole_vocabulary_is_the_full_divergence(name, top_k_of, k):
    teacher, student = jnp.asarray(draw(1))

    def top(s):
        return top_k_divergence(name, teacher, s, k, top_k_of).sum()

    def full(s):
        return divergence(name, teacher, s).sum()

    for a, b in zip(
        jax.value_and_grad(top)(student), jax.value_and_grad(full)(student), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("top_k_of", TOP_K_OF)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_equal_finite_differences(name, top_k_of):
    teacher, student = draw(2, rows=1)[:, 0]
    grad = jax.grad(lambda s: top_k_divergence(name, jnp.asarray(teacher), s, 3, top_k_of))(
        jnp.asarray(student)
    )
    eps = 1e-6
    for i in range(VOCAB):
        shift = np.eye(VOCAB)[i] * eps
        up, down = (
            numpy_top_k(name, teacher, student + sign * shift, 3, top_k_of, 0.5) for sign in (1, -1)
        )
        assert float(grad[i]) == pytest.approx((up - down) / (2 * eps), rel=1e-5, abs=1e-8)


def test_a_union_counts_every_token_once():
    same = jnp.asarray(draw(3)[0])
    shifted = same + jnp.linspace(0, 0.1, VOCAB)
    for k in (1, 2):  # the same tokens are the most likely of both
        alone = top_k_divergence("jsd", same, shifted, k, "teacher")
        np.testing.assert_allclose(top_k_divergence("jsd", same, shifted, k, "union"), alone)
    # 2 + 2 different tokens of 4 leave an empty tail.
    teacher, student = jnp.array([9.0, 8.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 8.0, 9.0])
    for name in DIVERGENCES:
        value, grad = jax.value_and_grad(lambda s, n=name: top_k_divergence(n, teacher, s, 2, "union"))(student)  # fmt: skip
        full, full_grad = jax.value_and_grad(lambda s, n=name: divergence(n, teacher, s))(student)
        np.testing.assert_allclose(value, full, rtol=1e-12)
        np.testing.assert_allclose(grad, full_grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "top_k_of"), list(zip(DIVERGENCES, TOP_K_OF, strict=True)))
def test_a_vanishing_tail_is_neither_negative_nor_not_a_number(name, top_k_of):
    """In float32, where 1 - sum(top k) would round to 0 or below."""
    with jax.enable_x64(False):
        teacher = jnp.array([30.0, 12.0, 0.0, -1.0, -2.0, -3.0], jnp.float32)
        student = jnp.array([31.0, 11.0, -3.0, -2.0, -1.0, 0.0], jnp.float32)
        value, grad = jax.value_and_grad(lambda s: top_k_divergence(name, teacher, s, 2, top_k_of))(
            student
        )
        exact = numpy_top_k(
            name, np.asarray(teacher, float), np.asarray(student, float), 2, top_k_of, 0.5
        )
        assert float(value) == pytest.approx(exact, abs=1e-7)
        assert float(value) > -1e-7
        assert np.all(np.isfinite(grad))
        # A tail that underflows altogether.
        value, grad = jax.value_and_grad(
            lambda s: top_k_divergence(name, teacher * 20, s * 20, 2, top_k_of)
        )(student)
        assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_the_tail_keeps_a_gradient():
    """Without it, top-k of the student would see nothing where the teacher likes other tokens."""
    teacher, student = jnp.array([-9.0, -9.0, 5.0, 0.0]), jnp.array([2.0, 1.0, 0.0, -1.0])
    grad = jax.grad(lambda s: top_k_divergence("forward_kl", teacher, s, 2, "student"))(student)
    assert float(grad[2]) < -0.1  # descent raises the token that only the tail holds


def test_unknown_sets():
    with pytest.raises(ValueError, match="choose one of"):
        top_k_divergence("jsd", jnp.zeros(3), jnp.zeros(3), 2, "both")
