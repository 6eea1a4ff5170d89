"""Candidates against plain loops over rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topd.candidates import any_position, high_loss, low_loss

B, T, W = 4, 9, 3
LOSSES = st.sampled_from([0.0, 0.25, 1.0, 2.0, 7.5])
ROWS = st.lists(
    st.lists(st.tuples(LOSSES, st.booleans()), min_size=T, max_size=T), min_size=B, max_size=B
)
KEY = jax.random.key(3)

_high = jax.jit(high_loss, static_argnums=(2, 3))
_low = jax.jit(low_loss, static_argnums=2)


def arrays(rows):
    losses = np.array([[x for x, _ in row] for row in rows], np.float32)
    eligible = np.array([[there for _, there in row] for row in rows])
    eligible[:, 0] = False
    return losses, eligible


@settings(max_examples=60)
@given(ROWS, st.sampled_from([0.1, 0.3, 1.0]))
def test_high_losses_are_the_rows_highest(rows, share):
    losses, eligible = arrays(rows)
    found = _high(losses, eligible, share, W)
    for b in range(B):
        places = [t for t in range(T) if eligible[b, t]]
        places.sort(key=lambda t: (-losses[b, t], t))
        count = min(max(1, round(np.float32(share) * len(places))), W, len(places))
        valid = np.asarray(found.valid_BxW[b])
        assert valid.tolist() == [w < count for w in range(W)]
        assert np.asarray(found.at_BxW[b])[valid].tolist() == places[:count]
        assert np.all(np.asarray(found.at_BxW[b])[~valid] == 1)


@settings(max_examples=30)
@given(ROWS, st.sampled_from([0.2, 0.5, 1.0]))
def test_low_losses_lie_below_the_quantile(rows, quantile):
    losses, eligible = arrays(rows)
    found = _low(losses, eligible, quantile, jnp.arange(B), KEY)
    for b in range(B):
        assert bool(found.valid_BxW[b, 0]) == eligible[b].any()
        if eligible[b].any():
            at = int(found.at_BxW[b, 0])
            bound = np.quantile(losses[b][eligible[b]], quantile)
            assert eligible[b, at] and losses[b, at] <= bound + 1e-6


def test_draws_are_uniform_and_belong_to_the_key_and_the_row():
    losses = jnp.asarray([[0.0, 1, 1, 5, 1, 1]])
    eligible = jnp.asarray([[False, True, True, True, True, False]])
    count = 2000

    @jax.jit
    def draw(ids, key):
        rows = (jnp.tile(x, (len(ids), 1)) for x in (losses, eligible))
        low = low_loss(*rows, 0.5, ids, key)
        free = any_position(jnp.tile(eligible, (len(ids), 1)), ids, key)
        return low.at_BxW[:, 0], free.at_BxW[:, 0]

    low, free = (np.asarray(x) for x in draw(jnp.arange(count), KEY))
    for drawn, allowed in ((low, [1, 2, 4]), (free, [1, 2, 3, 4])):
        places, counts = np.unique(drawn, return_counts=True)
        assert places.tolist() == allowed
        assert np.abs(counts / count - 1 / len(allowed)).max() < 0.04
    # A row is drawn as it is, whatever stands beside it; and the two kinds share no noise.
    some = np.array([5, 1200, 11])
    np.testing.assert_array_equal(draw(jnp.asarray(some), KEY)[1], free[some])
    assert np.mean(low == free) < 0.4
    assert np.mean(np.asarray(draw(jnp.arange(count), jax.random.key(4))[1]) == free) < 0.3


def test_a_loss_that_is_no_number_is_no_candidate():
    losses = jnp.asarray([[0.0, jnp.nan, 2.0, 1.0]])
    found = high_loss(losses, jnp.asarray([[False, True, True, True]]), 0.3, 1)
    assert int(found.at_BxW[0, 0]) == 2


def test_more_windows_than_positions_are_refused():
    with pytest.raises(ValueError, match=r"windows\.per_rollout=5 is more than the 4 positions"):
        high_loss(jnp.zeros((2, 4)), jnp.ones((2, 4), bool), 0.5, 5)
