"""Filters, both log-probabilities and the distribution drawn from, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_sampling import reference
from scipy.stats import chisquare

from models.decoding.sampling import Sampling, filter_logits, first_argmax, row_keys, sample


def probabilities(logits, sampling: Sampling):
    return np.asarray(jax.nn.softmax(filter_logits(jnp.asarray(logits), sampling), axis=-1))


SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.6},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 1e-6},
    {"top_p": 0.999999},
    {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    {"temperature": 0.7, "top_p": 0.5, "vocab_size": 19},
    {"temperature": 0.0, "vocab_size": 19},
    {"top_k": 25, "vocab_size": 19},
    {"top_p": 0.8, "vocab_size": 1},
    {"vocab_size": 1000},
]


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_filtered_distribution(fields):
    logits = 3 * np.random.RandomState(0).standard_normal((6, 32)).astype(np.float32)
    ours = probabilities(logits, Sampling(**({"temperature": 1.0} | fields)))
    np.testing.assert_allclose(ours, reference(logits, **fields), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    masses=st.lists(st.integers(1, 4), min_size=7, max_size=7),
    eighths=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_nucleus_is_the_smallest_set_under_ties(masses, eighths, seed):
    """Powers of two, so that masses and their sums are exact and ties abound."""
    weights = 2.0 ** np.array(masses)
    weights = np.append(weights, 2.0 ** np.ceil(np.log2(weights.sum() + 1)) - weights.sum())
    np.random.RandomState(seed).shuffle(weights)
    logits = np.log(weights / weights.sum())[None].astype(np.float32)
    # Halfway between eighths of the total, where rounding cannot decide.
    top_p = (eighths - 0.5) / 8 + 1e-3
    np.testing.assert_allclose(
        probabilities(logits, Sampling(top_p=top_p)), reference(logits, top_p=top_p), atol=1e-6
    )


def test_ties():
    equal = np.zeros((1, 8), np.float32)
    np.testing.assert_allclose(
        probabilities(equal, Sampling(top_p=0.3)), [[1 / 3] * 3 + [0] * 5], atol=1e-6
    )
    np.testing.assert_array_equal(probabilities(equal, Sampling(temperature=0)), np.eye(8)[:1])
    np.testing.assert_allclose(probabilities(equal, Sampling(top_k=2)), equal + 1 / 8)
    tied = np.log(np.array([[0.1, 0.3, 0.3, 0.3]], np.float32))
    np.testing.assert_allclose(
        probabilities(tied, Sampling(top_p=0.5)), [[0, 0.5, 0.5, 0]], atol=1e-6
    )


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_both_log_probs(fields):
    logits = 3 * np.random.RandomState(1).standard_normal((200, 32)).astype(np.float32)
    keys = row_keys(jax.random.key(3), jnp.arange(200))
    sampling = Sampling(**({"temperature": 1.0} | fields))
    tokens, sampled, plain = sample(jnp.asarray(logits), keys, jnp.arange(200), sampling)
    rows = np.arange(200)
    drawn_from = reference(logits, **fields)[rows, tokens]
    assert np.all(drawn_from > 0)
    np.testing.assert_allclose(sampled, np.log(drawn_from), atol=2e-5)
    unfiltered = reference(logits, vocab_size=fields.get("vocab_size"))[rows, tokens]
    np.testing.assert_allclose(plain, np.log(unfiltered), atol=2e-5)
    assert np.all(np.asarray(tokens) < fields.get("vocab_size", 32))


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 4, "vocab_size": 10}], ids=str
)
@pytest.mark.parametrize("varies", ["row", "position", "key"])
def test_draws_follow_the_distribution(fields, varies):
    """Whichever part of the noise's identity varies: row id, position or key."""
    count = 20_000
    logits = np.random.RandomState(2).standard_normal((1, 12)).astype(np.float32)
    index, zero = jnp.arange(count), jnp.zeros(count, jnp.int32)
    if varies == "key":
        keys = jax.vmap(lambda i: row_keys(jax.random.key(i), jnp.array([4]))[0])(index)
    else:
        keys = row_keys(jax.random.key(0), index if varies == "row" else zero)
    sampling = Sampling(**({"temperature": 1.0} | fields))
    positions = index if varies == "position" else zero
    repeated = jnp.broadcast_to(logits, (count, 12))
    tokens, _, _ = jax.jit(sample, static_argnums=3)(repeated, keys, positions, sampling)
    expected = reference(logits, **fields)[0] * count
    observed = np.bincount(tokens, minlength=12)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    assert chisquare(observed[possible], expected[possible]).pvalue > 1e-3


def test_noise_is_by_identity():
    """A row's draw depends on its key, its id and the position, not on where it lies."""
    logits = jnp.asarray(np.random.RandomState(0).standard_normal((6, 50)), jnp.float32)
    ids, positions = jnp.array([5, 3, 9, 0, 3, 7]), jnp.array([0, 4, 2, 8, 4, 1])

    def draw(order, key=0, shift=0):
        keys = row_keys(jax.random.key(key), ids[order])
        return np.asarray(sample(logits[order], keys, positions[order] + shift, Sampling())[0])

    whole = draw(np.arange(6))
    order = np.array([4, 1, 0, 5])
    np.testing.assert_array_equal(draw(order), whole[order])
    assert np.any(draw(np.arange(6), key=1) != whole)
    assert np.any(draw(np.arange(6), shift=1) != whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("vocab_size", 0)],
)
def test_out_of_range_raises(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}"):
        Sampling(**{field: value})


@pytest.mark.parametrize("size", [1, 2, 257])
def test_the_first_maximum_is_numpys(size):
    """Ties abound, and rows of minus infinity."""
    x = np.random.RandomState(1).randint(0, 4, (64, size)).astype(np.float32)
    x[x == 0] = -np.inf
    x[0] = -np.inf
    np.testing.assert_array_equal(jax.jit(first_argmax)(x), x.argmax(axis=1))
