"""Log-probabilities of tokens, in blocks and over fewer ids."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import models
from distill.losses import chunked
from distill.losses.log_probs import token_log_probs

from ...motab import tiny


@pytest.mark.parametrize("block_elements", [2**24, 5 * 16])
@pytest.mark.parametrize("vocab_size", [None, len(tiny.TOKENS)])
def test_equals_log_softmax(monkeypatch, block_elements, vocab_size):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", block_elements)
    params = tiny.params(tiny.TEACHER, 0, 2.0)
    tokens, _ = tiny.prompts(1, 3)
    hidden = models.forward_hidden(params, tiny.TEACHER, tokens)
    logits = models.logits(params, tiny.TEACHER, hidden)[..., :vocab_size]
    expected = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(tokens)[..., None], axis=-1
    )[..., 0]
    got = token_log_probs(params, tiny.TEACHER, hidden, tokens, vocab_size)
    np.testing.assert_allclose(got, expected, atol=1e-5)
