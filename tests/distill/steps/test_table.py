"""The delimiter's automaton against bytes.find on the joined text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.steps.table import make_step_table

ALPHABET = [b"a", b".", b"\n"]
TEXTS = st.lists(st.sampled_from(ALPHABET), max_size=5).map(b"".join)


def run_table(table, tokens):
    """(token index, byte offset in the token) where steps end."""
    next_state, end = np.asarray(table.next_state_VxQ), np.asarray(table.end_VxQ)
    state, ends = 0, []
    for i, token in enumerate(tokens):
        if end[token, state]:
            ends.append((i, int(end[token, state])))
        state = next_state[token, state]
    return ends


def search(token_bytes, tokens, delimiter):
    """The same by searching the text of each step anew; an empty token breaks the text."""
    ends, text = [], b""
    for i, token in enumerate(tokens):
        before = len(text)
        text += token_bytes[token] or b"\0"
        at = text.find(delimiter)
        if at >= 0:
            ends.append((i, at + len(delimiter) - before))
            text = b""
    return ends


@given(
    st.lists(TEXTS, min_size=2, max_size=8),
    st.lists(st.integers(0, 100), max_size=40),
    st.sampled_from([".\n\n", "\n\n", "aa.", "a.a.", ".", "..\n."]),
)
def test_equals_searching_the_text(token_bytes, draws, delimiter):
    tokens = [draw % len(token_bytes) for draw in draws]
    table = make_step_table(token_bytes, delimiter)
    assert run_table(table, tokens) == search(token_bytes, tokens, delimiter.encode())


def test_shapes_and_lengths():
    table = make_step_table([b"", b"ab", b".\n\n"], ".\n\n")
    assert table.next_state_VxQ.shape == table.end_VxQ.shape == (3, 3)
    assert table.num_bytes_V.tolist() == [0, 2, 3]
    assert table.delimiter_bytes == 3


def test_spill_over_belongs_to_the_step_it_ends():
    table = make_step_table([b"x.\n", b"\n.\n", b"\n"], ".\n\n")
    assert run_table(table, [0, 1, 2]) == [(1, 1)]  # the spilt ".\n" does not start the next one


def test_a_delimiter_in_utf8():
    token_bytes = [bytes([b]) for b in "。\n".encode()]
    table = make_step_table(token_bytes, "。\n")
    assert run_table(table, [0, 1, 2, 3]) == [(3, 1)]


def test_an_empty_delimiter_is_refused():
    with pytest.raises(ValueError, match="delimiter is empty"):
        make_step_table([b"a"], "")
