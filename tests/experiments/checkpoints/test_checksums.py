"""Checksums tell every flipped bit, and do not depend on where arrays lie."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.checkpoints.checksums import _ODD, checksums


def plain(x: np.ndarray) -> list[int]:
    """The same in Python's integers."""
    kinds = {1: np.uint8, 2: np.uint16, 4: np.uint32}
    bits = x.astype(np.uint8) if x.dtype == bool else x.view(kinds[x.dtype.itemsize])
    sums = [0, 0]
    for index, value in np.ndenumerate(bits):
        place = sum(i * odd for i, odd in zip(index, _ODD, strict=False)) % 2**32
        place ^= place >> 15
        place = place * 0x2C1B3C6D % 2**32
        place ^= place >> 12
        for i, factor in enumerate((place, (place * 0x297A2D39 % 2**32) ^ (place >> 15))):
            sums[i] = (sums[i] + int(value) * (factor | 1)) % 2**32
    return sums


RANDOM = np.random.default_rng(0)
ARRAYS = {
    "w": RANDOM.normal(size=(3, 4, 5)).astype(np.float32),
    "half": np.asarray(jnp.asarray(RANDOM.normal(size=7), jnp.bfloat16)),
    "ids": np.arange(-3, 3, dtype=np.int32),
    "odd": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
    "flags": np.array([[True, False]]),
    "one": np.float32(0.1).reshape(()),
    "none": np.zeros((0, 3), np.float32),
}


def test_the_sums_are_what_they_say():
    assert checksums(ARRAYS) == {name: plain(x) for name, x in ARRAYS.items()}


@settings(max_examples=60)
@given(st.sampled_from(["w", "half", "ids", "odd"]), st.data())
def test_every_flipped_bit_tells(name, data):
    changed = ARRAYS[name].copy()
    raw = changed.reshape(-1).view(np.uint8)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    before, after = plain(ARRAYS[name]), plain(changed)
    assert all(x != y for x, y in zip(before, after, strict=True))


def test_places_tell():
    x = jnp.arange(12.0).reshape(3, 4)
    assert checksums(x) != checksums(x[::-1])
    assert checksums(x) != checksums(x.T.reshape(3, 4))
    assert checksums({"a": x}).keys() == {"a"}


def test_names_are_those_of_the_tree():
    tree = {"params": {"w": jnp.ones(2)}, "list": [jnp.ones(1), jnp.zeros(1)]}
    assert set(checksums(tree)) == {"params.w", "list.0", "list.1"}
