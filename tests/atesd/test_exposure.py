"""Exposure on the device: against Python lists, exact fractions and one compilation."""

from __future__ import annotations

import random
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atesd.exposure import (
    References,
    ReferenceWidths,
    bucket,
    expose,
    pack_references,
    reference_responses,
    shown_tokens,
)
from atesd.references import Reference, ReferenceTokens, sentence_ends, tokenize_reference
from distill.trajectories import Source

WIDTHS = ReferenceWidths(head=64, reasoning=48, answer=20, tail=16)


def encode(text):
    """A token per character."""
    return [ord(c) % 500 + 1 for c in text], list(range(1, len(text) + 1))


def row(rng, unit="sentence"):
    def ids(most):
        return [rng.randrange(1, 500) for _ in range(rng.randint(1, most))]

    text = "".join(rng.choice("ab. \n") for _ in range(rng.choice((0, 5, 30, 47, 70))))
    reference = Reference(text, f"\\boxed{{{rng.randrange(10**6)}}}", rng.random() < 0.5)
    return tokenize_reference(reference, ids(60), ids(16), encode, WIDTHS.reasoning, unit)


def of_lengths(lengths):
    """References that differ in the length of their reasoning alone, unit `token`."""
    n, width = np.asarray(lengths, np.int32), max(lengths)
    cuts = np.minimum(np.arange(width + 1)[None], n[:, None]).astype(np.int32)
    one = np.ones((len(n), 1), np.int32)
    flag = np.zeros(len(n), bool)
    return References(
        one, one[:, 0], np.zeros((len(n), width), np.int32), n, cuts,
        one, one[:, 0], one, one[:, 0], flag, flag, flag,
    )  # fmt: skip


def shown(tokens: ReferenceTokens, exposure: Fraction):
    return tokens.cuts[int(exposure * len(tokens.reasoning))]


@pytest.mark.parametrize("unit", ["sentence", "token"])
@pytest.mark.parametrize("seed", range(3))
def test_contexts_are_joined_lists(unit, seed):
    rng = random.Random(seed)
    rows = [row(rng, unit) for _ in range(6)]
    references = pack_references(rows, WIDTHS)
    percents = [rng.randint(0, 100) for _ in rows]
    cases = [([k / 100 for k in percents], percents)]
    cases += [(k / 100, [k] * len(rows)) for k in (0, 37, 100)]
    for exposure, percent in cases:
        contexts, lengths = jax.jit(expose)(references, jnp.asarray(exposure))
        assert contexts.dtype == lengths.dtype == jnp.int32
        pieces = ("head_BxH", "reasoning_BxR", "answer_BxA", "tail_BxL")
        assert contexts.shape[1] == sum(getattr(references, p).shape[1] for p in pieces)
        for b, r in enumerate(rows):
            cut = shown(r, Fraction(percent[b], 100))
            expected = [*r.head, *r.reasoning[:cut], *r.answer, *r.tail]
            assert lengths[b] == len(expected)
            padding = contexts.shape[1] - len(expected)
            assert contexts[b].tolist() == expected + [0] * padding


def test_one_compilation_for_all_exposures():
    traces = []
    references = pack_references([row(random.Random(i)) for i in range(4)], WIDTHS)

    @jax.jit
    def run(references, exposure):
        traces.append(1)
        return expose(references, exposure)

    lengths = np.stack([run(references, jnp.float32(k / 20))[1] for k in range(21)])
    assert len(traces) == 1
    assert (np.diff(lengths, axis=0) >= 0).all() and (lengths[-1] > lengths[0]).any()


def test_token_unit_is_the_exact_floor():
    lengths = list(range(501))
    references = of_lengths(lengths)
    run = jax.jit(shown_tokens)
    for k in range(101):
        expected = [int(Fraction(k, 100) * n) for n in lengths]
        assert run(references, jnp.float32(k / 100)).tolist() == expected
    per_row = jnp.asarray([n % 101 / 100 for n in lengths])
    expected = [int(Fraction(n % 101, 100) * n) for n in lengths]
    assert run(references, per_row).tolist() == expected


def test_long_references_are_cut_exactly_too():
    lengths = [9_999, 16_384, 19_999, 20_000]
    references = of_lengths(lengths)
    run = jax.jit(shown_tokens)
    for k in range(101):
        expected = [int(Fraction(k, 100) * n) for n in lengths]
        assert run(references, jnp.float32(k / 100)).tolist() == expected


def test_exposure_outside_the_unit_interval_counts_as_its_end():
    references = of_lengths([7, 0, 500])
    assert shown_tokens(references, jnp.float32(1.5)).tolist() == [7, 0, 500]
    assert shown_tokens(references, jnp.float32(-0.5)).tolist() == [0, 0, 0]


@given(
    text=st.text('ab.!? \n"3é', max_size=40),
    exposures=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4),
)
def test_shown_text(text, exposures):
    tokens = tokenize_reference(Reference(text, "\\boxed{8}", True), [1], [2], encode, 48)
    references = pack_references([tokens], ReferenceWidths(16, 48, 16, 16))
    cuts = []
    for a in [0.0, *sorted(exposures), 1.0]:
        contexts, lengths = EXPOSE(references, jnp.float32(a))
        context = contexts[0, : int(lengths[0])].tolist()
        cut = len(context) - 2 - len(tokens.answer)
        cuts.append(cut)
        assert context == [1, *tokens.reasoning[:cut], *tokens.answer, 2]
        assert cut in (0, *sentence_ends(text), len(text))
        # In float32, as documented: at most half a millionth more than the exact product.
        assert cut <= Fraction(a) * len(text) * Fraction(1_000_001, 1_000_000)
    assert cuts == sorted(cuts) and cuts[0] == 0 and cuts[-1] == len(text)


EXPOSE = jax.jit(expose)


def test_shapes_are_buckets():
    assert [bucket(n, 100) for n in (0, 1, 16, 17, 32, 33, 65, 100)] == [
        16, 16, 16, 32, 32, 64, 100, 100,
    ]  # fmt: skip
    assert bucket(3, 8) == 8
    rng = random.Random(0)
    packs = [pack_references([row(rng) for _ in range(2)], WIDTHS) for _ in range(40)]
    assert {p.reasoning_BxR.shape[1] for p in packs} <= {16, 32, 48}
    assert {p.head_BxH.shape[1] for p in packs} <= {16, 32, 64}
    assert all(p.cuts_BxN.shape[1] == p.reasoning_BxR.shape[1] + 1 for p in packs)
    for leaf in jax.tree.leaves(packs[0]):
        assert isinstance(leaf, np.ndarray) and leaf.dtype in (np.int32, np.bool_)


@pytest.mark.parametrize("name", ["head", "reasoning", "answer", "tail"])
def test_what_is_too_long_is_named(name):
    fits = ReferenceTokens((1,), (2,), (3,), (4,), (0, 1), True, False, False)
    long = ReferenceTokens(
        **{**fits.__dict__, name: (5,) * 11, "cuts": tuple(range(12)) if name == "reasoning" else (0, 1)}
    )  # fmt: skip
    widths = ReferenceWidths(10, 10, 10, 10)
    pack_references([fits], widths)
    with pytest.raises(ValueError, match=rf"The {name} of reference 1 .* 11 .*widths\.{name}=10"):
        pack_references([fits, long], widths)


def test_widths_and_rows_are_checked():
    with pytest.raises(ValueError, match=r"widths\.answer=0 must be at least 1"):
        ReferenceWidths(1, 1, 0, 1)
    with pytest.raises(ValueError, match="no references"):
        pack_references([], WIDTHS)


def test_counts():
    def flagged(had_answer, empty, overlong):
        return ReferenceTokens((1,), (), (3,), (), (0,), had_answer, empty, overlong)

    rows = [
        flagged(True, False, True), flagged(False, True, False), flagged(False, False, True),
        flagged(False, True, True),
    ]  # fmt: skip
    packed = pack_references(rows, WIDTHS)
    assert packed.had_answer_B.tolist() == [row.had_answer for row in rows]
    assert packed.empty_B.tolist() == [row.empty for row in rows]
    assert packed.overlong_B.tolist() == [row.overlong for row in rows]
    assert (sum(packed.had_answer_B), sum(packed.empty_B), sum(packed.overlong_B)) == (1, 2, 3)


@pytest.mark.parametrize("behind", ["prompts", "contexts"])
def test_reference_responses(behind):
    rng = random.Random(5)
    rows = [row(rng) for _ in range(5)]
    references = pack_references(rows, WIDTHS)
    eos = 777
    if behind == "prompts":
        lengths = np.array([1, 9, 4, 2, 7], np.int32)
        prompts = np.where(np.arange(9) < lengths[:, None], 600, 0).astype(np.int32)
    else:
        prompts, lengths = expose(references, 0.5)
    got = jax.jit(reference_responses)(prompts, lengths, references, eos)
    width = (
        prompts.shape[1] + references.reasoning_BxR.shape[1] + references.answer_BxA.shape[1] + 1
    )
    assert got.tokens_BxT.shape == (5, width)
    for b, r in enumerate(rows):
        prompt = prompts[b, : int(lengths[b])].tolist()
        response = [*r.reasoning, *r.answer, eos]
        padding = [0] * (width - len(prompt) - len(response))
        assert got.tokens_BxT[b].tolist() == prompt + response + padding
        source = [Source.PROMPT] * len(prompt) + [Source.TEACHER] * len(response) + padding
        assert got.source_BxT[b].tolist() == source
        weights = [0] * len(prompt) + [1] * len(response) + padding
        assert got.likelihood_weights_BxT[b].tolist() == weights
        assert got.segment_ids_BxT[b].tolist() == [min(s, 1) for s in source]
    assert not got.divergence_weights_BxT.any()
    assert (got.positions_BxT == np.arange(width)).all()
