"""Plans and distances against an exact assignment, and what they must be."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from topd.settings import TransportSettings
from topd.transport import compare, cost, marginal, solve

K = 6
SHARP = TransportSettings(epsilon=1e-3, iterations=2000)


@functools.cache
def compared(options: TransportSettings):
    return jax.jit(lambda *inputs: compare(*inputs, options))


@functools.cache
def solved(options: TransportSettings):
    return jax.jit(lambda *inputs: solve(*inputs, options))


def uniform(n: int, k: int = K) -> jnp.ndarray:
    return jnp.full((n, k), 1 / k)


def table(seed: int = 0, tokens: int = 12, width: int = 8) -> np.ndarray:
    """Embeddings of a vocabulary."""
    return np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)


def windows(left, right, options, counts=None):
    """Plan and distance of two windows of token ids."""
    vectors = table()
    n = [len(left)] if counts is None else counts
    out = compared(options)(
        vectors[None, left], vectors[None, right], jnp.asarray([n[0]]), jnp.asarray([n[-1]])
    )
    return np.asarray(out.plan_NxKxK[0], np.float64), float(out.distance_N[0])


def test_costs_are_the_angles_between_tokens_and_the_distance_they_are_displaced():
    rng = np.random.default_rng(1)
    s, t = rng.normal(size=(2, 3, 5, 4))
    cosines = np.einsum(
        "nid,njd->nij",
        s / np.linalg.norm(s, axis=-1, keepdims=True),
        t / np.linalg.norm(t, axis=-1, keepdims=True),
    )
    displaced = np.abs(np.arange(5)[:, None] - np.arange(5)) / 5
    for options, expected in (
        (TransportSettings(), 1 - cosines),
        (TransportSettings(cost="euclidean"), np.sqrt(2 - 2 * cosines)),
        (TransportSettings(position_penalty=0.7), 1 - cosines + 0.7 * displaced),
    ):
        found = cost(jnp.asarray(s, jnp.float32), jnp.asarray(t, jnp.float32), options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        # Length does not matter.
        scaled = cost(jnp.asarray(3 * s, jnp.float32), jnp.asarray(t / 7, jnp.float32), options)
        np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-6)


def test_marginals_end_with_the_window():
    counts = jnp.asarray([4, 1, 0])
    flat = marginal(counts, 4, TransportSettings())
    np.testing.assert_allclose(flat, [[0.25] * 4, [1, 0, 0, 0], [0.25] * 4])
    falling = marginal(jnp.asarray([4, 2]), 4, TransportSettings(marginals="decaying"))
    np.testing.assert_allclose(falling, [[0.4, 0.3, 0.2, 0.1], [2 / 3, 1 / 3, 0, 0]], rtol=1e-6)


def test_as_epsilon_shrinks_cost_and_plan_become_those_of_the_exact_assignment():
    rng = np.random.default_rng(2)
    costs = rng.random((20, K, K)).astype(np.float32)
    exact = []
    for c in costs:
        i, j = linear_sum_assignment(c)
        plan = np.zeros((K, K))
        plan[i, j] = 1 / K
        exact.append((plan, c[i, j].mean()))
    plans, totals = (np.array(x) for x in zip(*exact, strict=True))
    errors = []
    for epsilon in (0.3, 0.1, 0.03, 0.01, 0.003):
        options = TransportSettings(epsilon=epsilon, iterations=20_000)
        found = solved(options)(costs, uniform(20), uniform(20))
        distance = np.asarray(found.distance_N, np.float64)
        # What columns still lack would cost at most the largest entry.
        columns = np.abs(np.asarray(found.plan_NxKxK, np.float64).sum(1) - 1 / K).sum(1)
        slack = columns * costs.max(axis=(1, 2)) + 1e-5
        assert np.all(columns < 1e-2)
        # Never below the exact cost, and above it by at most the entropy's share.
        assert np.all(distance >= totals - slack)
        assert np.all(distance - totals <= epsilon * 2 * np.log(K) + slack)
        errors.append(np.mean(distance - totals))
    assert np.all(np.diff(errors) < 0) and abs(errors[-1]) < 1e-3
    # Where the best assignment is best by far, the plan is that one.
    gaps = np.array([_gap(c, total) for c, total in zip(costs, totals, strict=True)])
    clear = gaps > 10 * 0.003
    assert clear.sum() >= 3
    np.testing.assert_allclose(np.asarray(found.plan_NxKxK)[clear], plans[clear], atol=1e-3)


def _gap(costs: np.ndarray, best: float) -> float:
    """How much dearer the best other assignment is, in total cost over K."""
    i, j = linear_sum_assignment(costs)
    others = []
    for row, column in zip(i, j, strict=True):
        blocked = costs.astype(np.float64).copy()
        blocked[row, column] = 1e3
        a, b = linear_sum_assignment(blocked)
        others.append(blocked[a, b].mean())
    return min(others) - best


def test_windows_of_different_lengths_against_a_linear_program():
    rng = np.random.default_rng(3)
    costs = rng.random((1, K, K)).astype(np.float32)
    for marginals in ("uniform", "decaying"):
        options = TransportSettings(epsilon=2e-3, iterations=5000, marginals=marginals)
        a, b = (marginal(jnp.asarray([n]), K, options) for n in (5, 3))
        found = solved(options)(costs, a, b)
        constraints = np.zeros((2 * K, K * K))
        for i in range(K):
            constraints[i, i * K : (i + 1) * K] = 1
            constraints[K + i, i::K] = 1
        both = np.concatenate([np.asarray(a[0], np.float64), np.asarray(b[0], np.float64)])
        program = linprog(costs.reshape(-1), A_eq=constraints, b_eq=both)
        assert program.status == 0
        assert float(found.distance_N[0]) == pytest.approx(program.fun, abs=2e-3)
        plan = np.asarray(found.plan_NxKxK[0])
        assert np.all(plan[5:] == 0) and np.all(plan[:, 3:] == 0)


@settings(max_examples=25)
@given(
    st.integers(0, 10_000), st.integers(1, K), st.integers(1, K), st.sampled_from([0.02, 0.05, 0.5])
)
def test_rows_keep_their_marginal_exactly_and_columns_nearly(seed, n, m, epsilon):
    vectors = np.random.default_rng(seed).normal(size=(2, 1, K, 4)).astype(np.float32)
    options = TransportSettings(epsilon=epsilon, iterations=500)
    found = compared(options)(*vectors, jnp.asarray([n]), jnp.asarray([m]))
    plan = np.asarray(found.plan_NxKxK[0], np.float64)
    a = np.where(np.arange(K) < n, 1 / n, 0)
    b = np.where(np.arange(K) < m, 1 / m, 0)
    assert np.all(plan >= 0)
    # The exponent, cost over epsilon, is rounded.
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-5)
    np.testing.assert_allclose(plan.sum(0), b, atol=5e-3)


def test_a_planted_permutation_is_recovered():
    rng = np.random.default_rng(4)
    for _ in range(5):
        left = rng.permutation(12)[:K]
        order = rng.permutation(K)
        plan, distance = windows(left, left[order], TransportSettings(epsilon=0.02, iterations=500))
        # Token j of the right is token order[j] of the left.
        expected = np.zeros((K, K))
        expected[order, np.arange(K)] = 1 / K
        np.testing.assert_allclose(plan, expected, atol=1e-4)
        assert distance < 1e-3
        # With a penalty on displacement it costs as much as tokens are displaced.
        penalised = TransportSettings(epsilon=0.002, iterations=2000, position_penalty=0.1)
        _, distance = windows(left, left[order], penalised)
        assert distance == pytest.approx(0.1 * np.abs(order - np.arange(K)).mean() / K, abs=1e-4)


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 11), min_size=K, max_size=K),
    st.lists(st.integers(0, 11), min_size=K, max_size=K),
)
def test_with_static_embeddings_the_distance_is_zero_only_for_equal_windows(left, right):
    """The same tokens in another order are at 0, too, unless displacement has a price."""
    penalty = TransportSettings(epsilon=1e-3, iterations=3000, position_penalty=0.5)
    for a, b in ((left, right), (left, left), (left, sorted(left))):
        distance = windows(np.array(a), np.array(b), SHARP)[1]
        ordered = windows(np.array(a), np.array(b), penalty)[1]
        nearest = _nearest() / K  # one token that has to be paid for
        assert distance >= -1e-6 and ordered >= distance - 2e-3
        assert (distance < 2e-3) == (sorted(a) == sorted(b))
        assert (ordered < 2e-3) == (a == b)
        if sorted(a) != sorted(b):
            assert distance > 0.9 * nearest


def _nearest() -> float:
    """The smallest cost between different tokens of the table."""
    costs = np.array(cost(table()[None], table()[None], TransportSettings())[0])
    np.fill_diagonal(costs, np.inf)
    return float(costs.min())


def test_what_lies_behind_a_window_does_not_matter():
    left, right = np.array([1, 2, 3, 4, 5, 6]), np.array([2, 1, 7, 8, 9, 10])
    plan, distance = windows(left, right, TransportSettings(), (2, 3))
    others = np.array([1, 2, 9, 9, 9, 9]), np.array([2, 1, 7, 0, 0, 0])
    again = windows(*others, TransportSettings(), (2, 3))
    np.testing.assert_array_equal(plan, again[0])
    assert distance == again[1] and plan[2:].sum() == 0


def test_nothing_has_a_gradient():
    vectors = jnp.asarray(np.random.default_rng(5).normal(size=(2, 3, K, 4)), jnp.float32)
    counts = jnp.full(3, K)

    def total(vectors):
        out = compare(vectors[0], vectors[1], counts, counts, TransportSettings(iterations=20))
        return jnp.sum(out.plan_NxKxK**2) + jnp.sum(out.distance_N)

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(vectors), 0)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"cost": "euclidean"}, True),
        ({"position_penalty": 0.3}, True),
        ({"marginals": "decaying"}, True),
        ({"epsilon": 0.2}, True),
        ({"iterations": 1}, True),
        ({}, False),
    ],
)
def test_every_field_changes_the_plan(changes, changed):
    left, right = np.array([1, 2, 3, 4, 5, 6]), np.array([2, 1, 7, 8, 9, 10])
    plain = windows(left, right, TransportSettings(), (6, 5))
    other = windows(left, right, TransportSettings(**changes), (6, 5))
    assert (plain[1] != other[1] and np.abs(plain[0] - other[0]).max() > 1e-6) == changed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embedding": "learnt"}, r"transport\.embedding='learnt'"),
        ({"cost": "l1"}, r"transport\.cost='l1'"),
        ({"marginals": "random"}, r"transport\.marginals='random'"),
        ({"position_penalty": -1.0}, r"transport\.position_penalty=-1\.0 must be 0"),
        ({"epsilon": 0.0}, r"transport\.epsilon=0\.0 must be above 0"),
        ({"iterations": 0}, r"transport\.iterations=0 must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TransportSettings(**fields)
