"""One model on two texts: against plain NumPy, equal texts, blocks and fewer ids."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import models
from distill.losses import chunked
from experiments.diagnose.exposure_bias import compare_contexts

from ...motab import tiny

LENGTH = 7
PROMPTS, PROMPT_LENGTHS = tiny.prompts(1, 3)


def text(seed):
    return jax.random.randint(jax.random.key(seed), (3, LENGTH), 0, len(tiny.TOKENS))


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def by_hand(params, config, tokens, vocab):
    """Log-probabilities [B, N, V] before each response token, a row at a time, unpadded."""
    rows = []
    for prompt, length, response in zip(PROMPTS, PROMPT_LENGTHS, tokens, strict=True):
        row = np.concatenate([prompt[: int(length)], response])[None]
        logits = np.asarray(models.forward(params, config, row), np.float64)[0, :, :vocab]
        rows.append(log_softmax(logits[int(length) - 1 : -1]))
    return np.stack(rows)


@pytest.mark.parametrize("block_elements", [2**24, 5 * 16])
@pytest.mark.parametrize("vocab_size", [None, len(tiny.TOKENS)])
def test_equals_plain_numpy(monkeypatch, block_elements, vocab_size):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", block_elements)
    params = tiny.params(tiny.TEACHER, 0)
    own, other = text(2), text(3)
    with jax.default_matmul_precision("highest"):
        got = compare_contexts(
            params, tiny.TEACHER, PROMPTS, PROMPT_LENGTHS, own, other, vocab_size
        )
        log_a, log_b = (by_hand(params, tiny.TEACHER, x, vocab_size) for x in (own, other))
    for log_probs, tokens, expected in (
        (got.own_log_probs, own, log_a),
        (got.other_log_probs, other, log_b),
    ):
        expected = np.take_along_axis(expected, np.asarray(tokens)[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(log_probs, expected, atol=2e-5)
    kl = (np.exp(log_a) * (log_a - log_b)).sum(axis=-1)
    np.testing.assert_allclose(got.kl, kl, atol=2e-5)
    assert kl[:, 2:].min() > 1e-3
    np.testing.assert_array_equal(got.kl[:, 0], 0)


@pytest.mark.parametrize("block_elements", [2**24, 5 * 16])
def test_equal_contexts_have_no_divergence(monkeypatch, block_elements):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", block_elements)
    params, own = tiny.params(tiny.STUDENT, 0), text(2)

    def compare(other):
        return jax.jit(compare_contexts, static_argnames="config")(
            params, tiny.STUDENT, PROMPTS, PROMPT_LENGTHS, own, other
        )

    same = compare(own)
    np.testing.assert_array_equal(same.kl, 0)
    np.testing.assert_array_equal(same.own_log_probs, same.other_log_probs)
    # A token changes the contexts behind it, and no other.
    changed = compare(own.at[:, 3].set((own[:, 3] + 1) % len(tiny.TOKENS)))
    np.testing.assert_array_equal(changed.kl[:, :4], 0)
    assert np.asarray(changed.kl[:, 4:]).min() > 0


def test_what_stands_behind_the_end_does_not_matter():
    params, own, other = tiny.params(tiny.STUDENT, 0), text(2), text(3)
    whole = compare_contexts(params, tiny.STUDENT, PROMPTS, PROMPT_LENGTHS, own, other)
    own, other = own.at[:, 4:].set(0), other.at[:, 4:].set(0)
    padded = np.where(np.arange(PROMPTS.shape[1]) < PROMPT_LENGTHS[:, None], PROMPTS, 5)
    cut = compare_contexts(params, tiny.STUDENT, padded, PROMPT_LENGTHS, own, other)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, :4], b[:, :4]), whole, cut)
