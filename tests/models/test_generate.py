"""`generate`: what a completion depends on, and where it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_sampling import reference
from tiny_models import tiny_config, tiny_params

from models import forward, generate

NEW = 12


@pytest.fixture(scope="module")
def model():
    config = tiny_config("qwen3")
    return tiny_params(config), config


@pytest.fixture
def run(model, prompts):
    """Generates from the ragged prompts, or from what replaces them."""

    def call(tokens=prompts[0], lengths=prompts[1], key=0, new=NEW, **options):
        return generate(*model, tokens, lengths, jax.random.key(key), new, **options)

    return call


def assert_same_rows(some, rows, whole):
    """`some` equals `whole[rows]`: tokens exactly, log-probabilities to rounding."""
    np.testing.assert_array_equal(some.tokens_BxN, whole.tokens_BxN[rows])
    np.testing.assert_array_equal(some.lengths_B, whole.lengths_B[rows])
    for name in ("log_probs_BxN", "log_probs_sampled_BxN"):
        np.testing.assert_allclose(getattr(some, name), getattr(whole, name)[rows], atol=2e-5)


def test_batch_composition_order_and_padding_do_not_matter(run, prompts):
    tokens, lengths = prompts
    ids = jnp.array([40, 10, 30, 20])
    whole = run(row_ids=ids)
    assert len(np.unique(whole.tokens_BxN)) > 10
    order = np.array([2, 0, 3, 1])
    assert_same_rows(run(tokens[order], lengths[order], row_ids=ids[order]), order, whole)
    assert_same_rows(run(tokens[1:3], lengths[1:3], row_ids=ids[1:3]), np.array([1, 2]), whole)
    wider = np.pad(tokens, ((0, 0), (0, 30)), constant_values=11)
    assert_same_rows(run(wider, lengths, row_ids=ids), np.arange(4), whole)
    assert np.any(run(row_ids=ids + 1).tokens_BxN != whole.tokens_BxN)
    assert np.any(run(row_ids=ids, key=1).tokens_BxN != whole.tokens_BxN)


@pytest.mark.slow
def test_fewer_new_tokens_are_a_prefix(run):
    """Also across the stages in which the cache grows."""
    long = run(new=70)
    short = run(new=NEW)
    np.testing.assert_array_equal(long.tokens_BxN[:, :NEW], short.tokens_BxN)
    np.testing.assert_array_equal(long.lengths_B, [70] * 4)


def scored(model, prompts, out):
    """Logits [4, NEW, V] of a full forward pass, at the positions the completions were drawn."""
    params, config = model
    tokens, lengths = prompts
    rows = np.zeros((4, tokens.shape[1] + NEW), np.int32)
    for b, n in enumerate(lengths):
        rows[b, :n] = tokens[b, :n]
        rows[b, n : n + NEW] = out.tokens_BxN[b]
    logits = np.asarray(forward(params, config, rows))
    return np.stack([logits[b, n - 1 : n - 1 + NEW] for b, n in enumerate(lengths)])


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.7, "top_k": 10, "vocab_size": 50}],
    ids=str,
)
def test_log_probs_are_those_of_the_full_forward_pass(options, model, run, prompts):
    out = run(**options)
    logits = scored(model, prompts, out).reshape(4 * NEW, -1)
    tokens = np.asarray(out.tokens_BxN).reshape(-1)
    drawn_from = reference(logits, **options)[np.arange(4 * NEW), tokens]
    plain = reference(logits, vocab_size=options.get("vocab_size"))[np.arange(4 * NEW), tokens]
    assert np.all(drawn_from > 0)
    np.testing.assert_allclose(out.log_probs_sampled_BxN.ravel(), np.log(drawn_from), atol=1e-4)
    np.testing.assert_allclose(out.log_probs_BxN.ravel(), np.log(plain), atol=1e-4)


def test_ends_at_end_of_sequence(run):
    free = run()
    tokens = np.asarray(free.tokens_BxN)
    eos = (int(tokens[0, 3]), int(tokens[2, 7]))
    out = run(eos_ids=eos)
    for b in range(4):
        hits = np.flatnonzero(np.isin(tokens[b], eos))
        length = hits[0] + 1 if len(hits) else NEW
        assert out.lengths_B[b] == length
        np.testing.assert_array_equal(out.tokens_BxN[b, :length], tokens[b, :length])
        for padded in (out.tokens_BxN, out.log_probs_BxN, out.log_probs_sampled_BxN):
            np.testing.assert_array_equal(padded[b, length:], 0)
    assert out.lengths_B[0] <= 4


def test_vocab_size_limits_what_is_drawn(run):
    out = run(temperature=5.0, vocab_size=7)
    assert np.max(out.tokens_BxN) < 7
    assert np.max(run(temperature=5.0).tokens_BxN) >= 7
    assert np.max(run(temperature=0.0, vocab_size=7).tokens_BxN) < 7


@pytest.mark.parametrize("new", [0, 1])
def test_few_new_tokens(new, run):
    out = run(new=new)
    assert out.tokens_BxN.shape == (4, new)
    np.testing.assert_array_equal(out.lengths_B, [new] * 4)
    np.testing.assert_array_equal(out.tokens_BxN, run().tokens_BxN[:, :new])
