"""The running buffer against a plain list."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topd.buffer import init_buffer, push, threshold

SIZE, BATCH = 7, 3
VALUES = st.lists(
    st.lists(st.tuples(st.floats(0, 2, width=32), st.booleans()), min_size=BATCH, max_size=BATCH),
    max_size=8,
)
_push = jax.jit(push)


@functools.cache
def _threshold(quantile: float, least: int):
    return jax.jit(lambda buffer: threshold(buffer, quantile, least))


@settings(max_examples=60)
@given(VALUES, st.sampled_from([0.0, 0.5, 0.75, 1.0]), st.sampled_from([1, 4]))
def test_the_threshold_is_the_quantile_of_the_latest_values(batches, quantile, least):
    buffer, plain = init_buffer(SIZE), []
    for batch in batches:
        values, valid = zip(*batch, strict=True)
        buffer = _push(buffer, jnp.asarray(values, jnp.float32), jnp.asarray(valid))
        plain += [x for x, there in batch if there]
        held = plain[-SIZE:]
        bound = float(_threshold(quantile, least)(buffer))
        assert int(buffer.count) == len(plain)
        if len(held) < least:
            assert bound == np.inf
        else:
            assert bound == pytest.approx(np.quantile(np.float32(held), quantile), abs=1e-6)
            assert sorted(np.asarray(buffer.values_N)[: len(held)]) == sorted(np.float32(held))


def test_what_is_not_finite_is_left_out():
    buffer = push(init_buffer(4), jnp.asarray([jnp.nan, 0.5, jnp.inf]), jnp.ones(3, bool))
    assert int(buffer.count) == 1 and float(buffer.values_N[0]) == 0.5


def test_more_values_than_it_holds_are_refused():
    with pytest.raises(ValueError, match=r"guidance\.buffer=2 holds fewer values .* \(3\)"):
        push(init_buffer(2), jnp.zeros(3), jnp.ones(3, bool))
