"""find_backtrack against a brute-force reading of Eq. 7 and 8."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from motab import find_backtrack


def brute_force(values, boundaries, num_steps):
    for breach in range(num_steps):
        if values[breach] < boundaries[breach]:
            best, root = None, breach
            for k in range(1, breach + 1):
                if values[k - 1] < boundaries[k - 1]:
                    continue
                delta = np.float32(values[k]) - np.float32(values[k - 1])
                if best is None or delta < best:
                    best, root = delta, k
            return breach, root if breach > 0 else 0
    return -1, -1


def test_equals_brute_force_on_10000_random_inputs():
    rng = np.random.default_rng(0)
    rows, steps = 10_000, 12
    values = rng.random((rows, steps)).astype(np.float32)
    values[::2] = np.round(values[::2] * 4) / 4  # half of the rows full of ties
    boundaries = (rng.random((rows, 1)) * rng.random((rows, steps))).astype(np.float32)
    boundaries[::5] = np.round(boundaries[::5] * 4) / 4
    num_steps = rng.integers(0, steps + 1, rows)
    breach, root = jax.jit(find_backtrack)(values, boundaries, num_steps)
    expected = np.array(
        [brute_force(*row) for row in zip(values, boundaries, num_steps, strict=True)]
    )
    np.testing.assert_array_equal(np.stack([breach, root], 1), expected)
    assert len(np.unique(expected[:, 0])) > 8 and len(np.unique(expected[:, 1])) > 8


def test_edges():
    values = np.array(
        [[1.0, 0.625, 0.625, 0.25], [0.1, 0.9, 0.9, 0.9], [0.9, 0.8, 0.7, 0.6]], np.float32
    )
    boundaries = np.full_like(values, 0.3)
    breach, root = find_backtrack(values, boundaries, np.array([4, 4, 4]))
    assert breach.tolist() == [3, 0, -1]  # the first row falls by 3/8 twice: the earlier one counts
    assert root.tolist() == [1, 0, -1]
    breach, root = find_backtrack(values, boundaries, np.array([3, 0, 0]))
    assert breach.tolist() == root.tolist() == [-1, -1, -1]
    on_the_line = find_backtrack(values[:1, :1], values[:1, :1], np.array([1]))
    assert on_the_line[0].tolist() == [-1]  # V = gamma is safe


@given(st.integers(0, 2**32 - 1))
def test_root_lies_in_range_and_ignores_what_follows(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((8, 6)).astype(np.float32)
    boundaries = rng.random((8, 6)).astype(np.float32)
    num_steps = rng.integers(0, 7, 8)
    breach, root = map(np.asarray, find_backtrack(values, boundaries, num_steps))
    assert np.all((breach == -1) == (root == -1))
    assert np.all(root <= breach) and np.all(breach < np.maximum(num_steps, 1))
    assert np.all((root >= 1) | (breach <= 0))
    later = np.arange(6) > breach[:, None]
    changed = np.where(later & (breach >= 0)[:, None], rng.random((8, 6)), values)
    again = find_backtrack(changed.astype(np.float32), boundaries, num_steps)
    np.testing.assert_array_equal(again[0], breach)
    np.testing.assert_array_equal(again[1], root)
