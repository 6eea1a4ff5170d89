"""Packing against the naive algorithm, and packed losses against those of rows apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.packing import Segment, first_fit_decreasing, pack, pack_segments
from distill.trajectories import Source, Trajectories

STUDENT = models.ModelConfig("qwen3", 13, 16, 32, 2, 2, 1, 8, qk_norm=True)
TEACHER = models.ModelConfig("qwen2", 16, 24, 32, 1, 2, 2, 8, qkv_bias=True, tie_embeddings=True)


def naive(lengths, width):
    rows, room = [], []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fits = [row for row, free in enumerate(room) if free >= lengths[item]]
        if not fits:
            fits = [len(rows)]
            rows.append([])
            room.append(width)
        row = fits[0]
        rows[row].append(item)
        room[row] -= lengths[item]
    return rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=40), st.integers(12, 30))
def test_rows_are_those_of_the_naive_algorithm(lengths, width):
    assert first_fit_decreasing(lengths, width) == naive(lengths, width)


def test_skewed_lengths_fill_the_rows():
    """Log-normal with p95 / p50 = 5."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(200), np.log(5) / 1.645, 4000)).astype(int).clip(1, 4096)
    rows = first_fit_decreasing(lengths, 4096)
    assert sorted(i for row in rows for i in row) == list(range(4000))
    assert lengths.sum() / (4096 * len(rows)) > 0.99


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"Trajectory 1 has 9 tokens .* rows of 8"):
        first_fit_decreasing([3, 9], 8)
    tokens, weights = np.ones(5, np.int32), np.zeros(5, np.float32)
    segment = Segment(tokens, tokens, weights, weights)
    with pytest.raises(ValueError, match="Row 1 holds more than 8 tokens"):
        pack_segments([[segment], [segment, segment]], 8)
    with pytest.raises(ValueError, match="first token has a weight"):
        Segment(tokens, tokens, weights + 1, weights)


def apart(seed: int, rows: int = 7, width: int = 9) -> Trajectories:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    lengths[0] = width
    present = np.arange(width) < lengths[:, None]
    likelihood = (rng.random((rows, width)) < 0.5) & present
    divergence = (rng.random((rows, width)) < 0.5) & present & ~likelihood
    likelihood[:, 0] = divergence[:, 0] = False
    return Trajectories(
        tokens_BxT=jnp.asarray(rng.integers(0, 13, (rows, width)) * present, jnp.int32),
        source_BxT=jnp.asarray(np.where(present, Source.STUDENT, Source.PADDING), jnp.int32),
        likelihood_weights_BxT=jnp.asarray(likelihood * 0.5, jnp.float32),
        divergence_weights_BxT=jnp.asarray(divergence, jnp.float32),
        positions_BxT=jnp.broadcast_to(jnp.arange(width), (rows, width)),
        segment_ids_BxT=jnp.asarray(present, jnp.int32),
    )


def test_a_row_without_padding_between_its_segments():
    t = apart(1)
    packed = pack(t, 20)
    lengths = np.sum(np.asarray(t.segment_ids_BxT) != 0, axis=1)
    members = first_fit_decreasing(lengths, 20)
    assert len(packed.tokens_BxT) == len(members) < len(lengths)
    for r, row in enumerate(members):
        start = 0
        for number, b in enumerate(row, 1):
            here = slice(start, start + lengths[b])
            assert (packed.segment_ids_BxT[r, here] == number).all()
            assert packed.positions_BxT[r, here].tolist() == list(range(lengths[b]))
            for name in ("tokens", "source", "likelihood_weights", "divergence_weights"):
                old, new = getattr(t, f"{name}_BxT"), getattr(packed, f"{name}_BxT")
                assert new[r, here].tolist() == old[b, : lengths[b]].tolist(), name
            start += lengths[b]
        for name in ("segment_ids", "tokens", "source", "likelihood_weights", "divergence_weights"):
            assert not getattr(packed, f"{name}_BxT")[r, start:].any()


@pytest.mark.parametrize("width", [9, 16, 40])
def test_losses_and_gradients_are_those_of_rows_apart(width):
    params = [models.init(jax.random.key(k), c) for k, c in ((1, STUDENT), (2, TEACHER))]

    @jax.jit
    def value_and_grad(trajectories):
        def loss(student):
            sums = trajectory_loss(
                student, STUDENT, trajectories, params[1], TEACHER, Signal("reverse_kl")
            )
            return sums.mean, sums

        return jax.value_and_grad(loss, has_aux=True)(params[0])

    t = apart(3)
    with jax.default_matmul_precision("highest"):
        (_, sums), gradients = value_and_grad(t)
        (_, packed_sums), packed_gradients = value_and_grad(pack(t, width))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    # Rows that train nothing are others once rows are shared.
    jax.tree.map(close, packed_sums.replace(idle_rows=sums.idle_rows), sums)
    jax.tree.map(close, packed_gradients, gradients)
    assert float(sums.likelihood) > 0.1 and float(sums.divergence) > 0.1
