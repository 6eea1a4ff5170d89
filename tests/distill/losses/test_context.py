"""The teacher's view of a response behind other tokens: Python lists, and a forward row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.losses.context import gather, teacher_view
from distill.rollouts.assembly import assemble
from distill.trajectories import Source

from ...motab import tiny

ROWS, PROMPT, CONTEXT, RESPONSE = 6, 5, 9, 7


def trajectories(seed):
    """Random rows with responses of every length from 0 to the budget."""
    random = np.random.RandomState(seed)
    prompt_lengths = random.randint(1, PROMPT + 1, ROWS)
    response_lengths = np.array([0, RESPONSE, 1, *random.randint(1, RESPONSE + 1, ROWS - 3)])
    text = random.randint(1, len(tiny.TOKENS), (ROWS, PROMPT + RESPONSE))
    writers = random.choice(
        [Source.STUDENT, Source.FLAWED, Source.REVISION, Source.TEACHER], text.shape
    )
    rows = assemble(
        jnp.asarray(text), jnp.asarray(writers), jnp.asarray(prompt_lengths),
        jnp.asarray(prompt_lengths + response_lengths), "divergence",
    )  # fmt: skip
    return rows, prompt_lengths, response_lengths


def contexts(seed):
    """Random contexts with rubbish beyond their lengths, which run from 1 to the width."""
    random = np.random.RandomState(seed)
    tokens = random.randint(1, len(tiny.TOKENS), (ROWS, CONTEXT))
    return tokens, np.array([1, CONTEXT, CONTEXT, *random.randint(1, CONTEXT, ROWS - 3)])


@pytest.mark.parametrize("seed", range(3))
def test_responses_follow_their_contexts(seed):
    rows, prompt_lengths, response_lengths = trajectories(seed)
    tokens, lengths = contexts(seed + 10)
    view = jax.jit(teacher_view, static_argnums=3)(tokens, lengths, rows, RESPONSE)
    width = CONTEXT + RESPONSE
    for b in range(ROWS):
        p, c, r = prompt_lengths[b], lengths[b], response_lengths[b]
        response = rows.tokens_BxT[b, p : p + r].tolist()
        padding = [0] * (width - c - r)
        assert view.tokens_BxS[b].tolist() == tokens[b, :c].tolist() + response + padding
        assert view.segment_ids_BxS[b].tolist() == [1] * (c + r) + padding
        assert view.positions_BxS[b].tolist() == list(range(width))
        for i in range(r):
            at = int(view.index_BxT[b, p - 1 + i])
            assert at == c - 1 + i
            assert view.tokens_BxS[b, at + 1] == rows.tokens_BxT[b, p + i]
    assert view.index_BxT.shape == rows.tokens_BxT.shape
    assert int(view.index_BxT.min()) >= 0 and int(view.index_BxT.max()) < width
    assert {x.dtype for x in jax.tree.leaves(view)} == {jnp.dtype(jnp.int32)}


def test_prompts_as_contexts_give_the_students_layout():
    rows, prompt_lengths, _ = trajectories(3)
    prompts = rows.tokens_BxT[:, :PROMPT]
    view = teacher_view(prompts, jnp.asarray(prompt_lengths), rows, RESPONSE)
    np.testing.assert_array_equal(view.tokens_BxS, rows.tokens_BxT)
    np.testing.assert_array_equal(view.positions_BxS, rows.positions_BxT)
    np.testing.assert_array_equal(view.segment_ids_BxS, rows.segment_ids_BxT)
    at = np.broadcast_to(np.arange(PROMPT + RESPONSE), view.index_BxT.shape)
    np.testing.assert_array_equal(view.index_BxT, at)
    values = np.random.RandomState(0).standard_normal(rows.tokens_BxT.shape)
    np.testing.assert_array_equal(gather(jnp.asarray(values), view), np.float32(values))


def test_gathered_logits_are_those_of_each_row_alone():
    rows, prompt_lengths, response_lengths = trajectories(4)
    tokens, lengths = contexts(5)
    params = tiny.params(tiny.TEACHER, 1)

    @jax.jit
    def run(tokens, lengths, rows):
        view = teacher_view(tokens, lengths, rows, RESPONSE)
        hidden = models.forward_hidden(
            params, tiny.TEACHER, view.tokens_BxS, view.positions_BxS, view.segment_ids_BxS
        )
        return models.logits(params, tiny.TEACHER, gather(hidden, view))

    got = run(tokens, lengths, rows)
    assert got.shape[:2] == rows.tokens_BxT.shape and np.isfinite(got).all()
    forward = jax.jit(lambda tokens: models.forward(params, tiny.TEACHER, tokens))
    for b in (1, 2, 3):
        p, c, r = prompt_lengths[b], lengths[b], response_lengths[b]
        alone = jnp.concatenate([jnp.asarray(tokens[b, :c]), rows.tokens_BxT[b, p : p + r]])[None]
        expected = forward(alone)[0]
        np.testing.assert_allclose(
            got[b, p - 1 : p - 1 + r], expected[c - 1 : c - 1 + r], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("max_response", [0, PROMPT + RESPONSE])
def test_the_budget_is_checked(max_response):
    rows, _, _ = trajectories(0)
    tokens, lengths = contexts(0)
    with pytest.raises(ValueError, match=rf"max_response={max_response} must be at least 1"):
        teacher_view(jnp.asarray(tokens), jnp.asarray(lengths), rows, max_response)
