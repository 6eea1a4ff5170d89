"""Cached decoding against the full forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config, tiny_params

from models import ModelConfig, count, forward, forward_hidden
from models.decoding.decode import (
    Cursor,
    capacities,
    decode,
    extend,
    init_cache,
    least_capacity,
    prefill,
    put,
    resize_cache,
    unstack,
)
from models.decoding.sampling import Sampling, row_keys

TOLERANCE = 2e-5
LENGTH = 24
ROWS = 3


class Model:
    """A tiny model with its full forward pass over fixed sequences, and a jitted `extend`."""

    def __init__(self, family: str):
        self.config = tiny_config(family)
        self.stacked = tiny_params(self.config)
        self.params = unstack(self.stacked, self.config)
        self.tokens = np.random.RandomState(1).randint(0, 64, (ROWS, LENGTH)).astype(np.int32)
        self.hidden = np.asarray(forward_hidden(self.stacked, self.config, self.tokens))
        self._extend = jax.jit(extend, static_argnums=1)

    def extend(self, tokens, start, cache, valid=None):
        hidden, cache = self._extend(
            self.params, self.config, jnp.asarray(tokens), jnp.asarray(start), cache, valid
        )
        return np.asarray(hidden), cache


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def model(request) -> Model:
    with jax.default_matmul_precision("highest"):
        return Model(request.param)


@pytest.fixture(scope="module")
def qwen3() -> Model:
    """For what does not depend on the family."""
    with jax.default_matmul_precision("highest"):
        return Model("qwen3")


def test_chunks_equal_the_full_pass(model):
    for chunk in (1, 5, LENGTH):
        cache = init_cache(model.config, ROWS, LENGTH)
        for start in range(0, LENGTH, chunk):
            tokens = model.tokens[:, start : start + chunk]
            hidden, cache = model.extend(tokens, np.full(ROWS, start), cache)
            expected = model.hidden[:, start : start + chunk]
            np.testing.assert_allclose(hidden, expected, atol=TOLERANCE)


# A schedule per row: how many tokens it takes in each call, and how far it is rewound first.
CALLS = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=ROWS, max_size=ROWS),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(calls=CALLS)
def test_rows_go_their_own_way(model, calls):
    """Per-row starts, ragged chunks, rewinds, and padding that holds arbitrary tokens."""
    width, capacity = 6, LENGTH + 8
    cache = init_cache(model.config, ROWS, capacity)
    # Whatever slots hold beyond a row's length must not matter, unless it is not finite.
    cache = jax.tree.map(lambda x: x + 7.0, cache)
    lengths = np.zeros(ROWS, np.int32)
    with jax.default_matmul_precision("highest"):
        for call in calls:
            counts = np.array([c for c, _ in call])
            lengths = np.maximum(lengths - [r for _, r in call], 0)
            counts = np.minimum(counts, LENGTH - lengths)
            tokens = np.full((ROWS, width), 63, np.int32)
            for b in range(ROWS):
                tokens[b, : counts[b]] = model.tokens[b, lengths[b] : lengths[b] + counts[b]]
            valid = np.arange(width) < counts[:, None]
            hidden, cache = model.extend(tokens, lengths, cache, valid)
            for b in range(ROWS):
                expected = model.hidden[b, lengths[b] : lengths[b] + counts[b]]
                np.testing.assert_allclose(hidden[b, : counts[b]], expected, atol=TOLERANCE)
            lengths = (lengths + counts).astype(np.int32)


def test_rewound_row_takes_other_tokens(qwen3):
    """After a rewind, other tokens give what a fresh row would: nothing old is seen."""
    cache = init_cache(qwen3.config, ROWS, LENGTH)
    _, cache = qwen3.extend(qwen3.tokens, np.zeros(ROWS, np.int32), cache)
    other = (qwen3.tokens[:, 10:15] + 1) % 64
    hidden, _ = qwen3.extend(other, np.full(ROWS, 10), cache)
    sequence = np.concatenate([qwen3.tokens[:, :10], other], axis=1)
    expected = np.asarray(forward_hidden(qwen3.stacked, qwen3.config, sequence))[:, 10:]
    np.testing.assert_allclose(hidden, expected, atol=TOLERANCE)


def test_growing_a_cache_changes_nothing(qwen3):
    cache = init_cache(qwen3.config, ROWS, 12)
    _, cache = qwen3.extend(qwen3.tokens[:, :12], np.zeros(ROWS, np.int32), cache)
    cache = resize_cache(cache, LENGTH)
    assert cache.capacity == LENGTH
    hidden, _ = qwen3.extend(qwen3.tokens[:, 12:], np.full(ROWS, 12), cache)
    np.testing.assert_allclose(hidden, qwen3.hidden[:, 12:], atol=TOLERANCE)


def test_invalid_tokens_leave_no_trace(qwen3):
    cache = init_cache(qwen3.config, ROWS, LENGTH)
    _, after = qwen3.extend(
        qwen3.tokens, np.zeros(ROWS, np.int32), cache, np.zeros((ROWS, LENGTH), bool)
    )
    jax.tree.map(np.testing.assert_array_equal, after, cache)


def test_forward_keeps_segments_apart(qwen3):
    """Two sequences packed in a row, and padding, equal the sequences alone."""
    packed = np.concatenate([qwen3.tokens[:1, :9], qwen3.tokens[1:2, :12]], axis=1)
    packed = np.pad(packed, ((0, 0), (0, 3)))
    segments = np.array([[1] * 9 + [2] * 12 + [0] * 3])
    positions = np.array([[*range(9), *range(12), *range(3)]])
    logits = np.asarray(forward(qwen3.stacked, qwen3.config, packed, positions, segments))
    alone = np.asarray(forward(qwen3.stacked, qwen3.config, qwen3.tokens))
    np.testing.assert_allclose(logits[0, :9], alone[0, :9], atol=1e-4)
    np.testing.assert_allclose(logits[0, 9:21], alone[1, :12], atol=1e-4)


def test_rematerialisation_changes_no_gradient(qwen3):
    def gradients(remat):
        config = qwen3.config.replace(remat=remat)
        loss = jax.jit(jax.grad(lambda p: jnp.mean(forward(p, config, qwen3.tokens[:1, :4]) ** 2)))
        return loss(qwen3.stacked)

    plain = gradients("none")
    for remat in ("full", "dots"):
        for ours, expected in zip(*map(jax.tree.leaves, (gradients(remat), plain)), strict=True):
            scale = np.max(np.abs(expected))
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * scale)


def test_decode_stops_where_it_should(qwen3):
    """Inactive rows stay as they are; a row ends at its limit or at an end-of-sequence token."""
    prompts, lengths = qwen3.tokens[:, :6], jnp.array([6, 3, 4])
    cache = prefill(
        qwen3.params, qwen3.config, prompts, lengths, init_cache(qwen3.config, ROWS, 32)
    )
    cursor = Cursor(
        token_B=jnp.asarray(prompts)[jnp.arange(ROWS), lengths - 1],
        length_B=lengths,
        limit_B=lengths + jnp.array([20, 20, 3]),
        origin_B=lengths,
        active_B=jnp.array([True, False, True]),
    )
    keys = row_keys(jax.random.key(0), jnp.arange(ROWS))
    step = jax.jit(decode, static_argnums=(1, 5, 6, 7))

    def run(cache, cursor, count, eos=()):
        return step(qwen3.params, qwen3.config, cache, cursor, keys, count, Sampling(), eos)

    _, whole, written = run(cache, cursor, 10)
    np.testing.assert_array_equal(written.count_B, [10, 0, 3])
    np.testing.assert_array_equal(whole.length_B, lengths + written.count_B)
    np.testing.assert_array_equal(whole.active_B, [True, False, False])
    assert whole.token_B[1] == cursor.token_B[1]

    # in two calls, the same
    middle_cache, middle, first = run(cache, cursor, 5)
    _, end, second = run(middle_cache, middle, 5)
    np.testing.assert_array_equal(end.length_B, whole.length_B)
    both = jnp.concatenate([first.tokens_BxC[0], second.tokens_BxC[0]])
    np.testing.assert_array_equal(both, written.tokens_BxC[0])

    eos = int(written.tokens_BxC[0, 4])
    expected = list(np.asarray(written.tokens_BxC[0])).index(eos) + 1
    _, ended, cut = run(cache, cursor, 10, (eos, 99))
    assert cut.count_B[0] == expected
    assert not ended.active_B[0]
    assert ended.token_B[0] == eos


def test_decode_reports_the_hidden_states_it_drew_from(qwen3):
    prompts = qwen3.tokens[:, :6]
    lengths = jnp.full(ROWS, 6)
    cache = prefill(
        qwen3.params, qwen3.config, prompts, lengths, init_cache(qwen3.config, ROWS, 32)
    )
    cursor = Cursor(
        jnp.asarray(prompts[:, -1]), lengths, lengths + 9, lengths, jnp.ones(ROWS, bool)
    )
    keys = row_keys(jax.random.key(0), jnp.arange(ROWS))
    _, _, written = decode(qwen3.params, qwen3.config, cache, cursor, keys, 8, Sampling(), ())
    sequence = np.concatenate([prompts, written.tokens_BxC], axis=1)
    hidden = np.asarray(forward_hidden(qwen3.stacked, qwen3.config, sequence))
    np.testing.assert_allclose(written.hidden_BxCxD, hidden[:, 5:-1], atol=TOLERANCE)
    logits = np.asarray(forward(qwen3.stacked, qwen3.config, sequence), np.float64)[:, 5:-1]
    log_probs = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, np.asarray(written.tokens_BxC)[..., None], -1)[..., 0]
    np.testing.assert_allclose(written.log_probs_BxC, chosen, atol=1e-4)
    np.testing.assert_allclose(written.log_probs_sampled_BxC, chosen, atol=1e-4)


@given(start=st.integers(1, 300), more=st.integers(0, 500), least=st.sampled_from([32, 256]))
def test_capacities_double_up_to_the_total(start, more, least):
    sizes = capacities(start, start + more, least)
    assert sizes[-1] == start + more
    assert sizes == sorted(set(sizes))
    assert all(size & (size - 1) == 0 and size >= max(start, least) for size in sizes[:-1])


def test_large_models_have_few_capacities():
    """Attention to all of the least costs less than a twentieth of the weights, to twice it more."""
    tiny = ModelConfig(
        family="qwen2", vocab_size=98, hidden_size=64, intermediate_size=256, num_layers=3,
        num_heads=4, num_kv_heads=2, head_dim=16,
    )  # fmt: skip
    large = tiny.replace(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14,
        head_dim=64, tie_embeddings=True,
    )  # fmt: skip
    assert least_capacity([tiny]) == least_capacity([tiny, large]) == 32
    least = least_capacity([large])
    attention = 4 * large.num_heads * large.head_dim * large.num_layers  # FLOPs by position
    assert least * attention <= 2 * count(large) / 20 < 2 * least * attention
    assert capacities(1, 400, least) == [400]


def test_put_writes_only_what_counts():
    buffer = jnp.zeros((3, 5), jnp.int32)
    block = jnp.arange(1, 10).reshape(3, 3)
    written = put(buffer, block, jnp.array([0, 3, 4]), jnp.array([2, 2, 3]))
    np.testing.assert_array_equal(written, [[1, 2, 0, 0, 0], [0, 0, 0, 4, 5], [0, 0, 0, 0, 7]])
