"""GKD's coin: which rows are the student's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.rollouts.assembly import assemble
from distill.trajectories import Source
from mixtures.mixing import mix, on_policy_rows

ROWS = 4000
IDS = jnp.arange(ROWS) * 3 + 1
KEY = jax.random.key(2)


def rows(width, token, source, train):
    text = jnp.full((ROWS, width), token)
    ones = jnp.ones(ROWS, jnp.int32)
    return assemble(text, jnp.full_like(text, source), ones, ones * (width - 1), train)


STUDENT = rows(5, 7, Source.STUDENT, "divergence")
DATA = rows(8, 9, Source.TEACHER, "likelihood")


def from_student(mixed):
    return np.any(np.asarray(mixed.source_BxT) == Source.STUDENT, axis=1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_rows_come_whole_and_at_the_right_rate(share):
    mixed = jax.device_get(jax.jit(mix)(STUDENT, DATA, share, KEY, IDS))
    chosen = from_student(mixed)
    assert abs(np.mean(chosen) - share) <= 4 * np.sqrt(share * (1 - share) / ROWS)
    np.testing.assert_array_equal(chosen, on_policy_rows(share, KEY, IDS))
    for got, student, data in zip(*map(jax.tree.leaves, (mixed, STUDENT, DATA)), strict=True):
        np.testing.assert_array_equal(got[chosen, :5], student[chosen])
        assert not np.any(got[chosen, 5:])
        np.testing.assert_array_equal(got[~chosen], data[~chosen])


def test_the_wider_side_may_be_either():
    swapped = mix(DATA, STUDENT, 0.5, KEY, IDS)
    assert swapped.tokens_BxT.shape == (ROWS, 8)
    chosen = np.any(np.asarray(swapped.source_BxT) == Source.TEACHER, axis=1)
    np.testing.assert_array_equal(chosen, on_policy_rows(0.5, KEY, IDS))


def test_a_coin_belongs_to_its_sample():
    chosen = np.asarray(on_policy_rows(0.5, KEY, IDS))
    order = np.random.default_rng(0).permutation(ROWS)[:100]
    np.testing.assert_array_equal(on_policy_rows(0.5, KEY, IDS[order]), chosen[order])
    for other in (on_policy_rows(0.5, jax.random.key(3), IDS), on_policy_rows(0.5, KEY, IDS + 1)):
        assert 0.4 < np.mean(chosen == np.asarray(other)) < 0.6
    # A larger lambda only adds rows.
    assert np.all(np.asarray(on_policy_rows(0.7, KEY, IDS))[chosen])
