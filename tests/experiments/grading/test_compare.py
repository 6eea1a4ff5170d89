"""Answers that are equal and answers that are not, by kind; and what must hold for any."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.grading.compare import equal, quick
from experiments.grading.literal import read_literal
from experiments.grading.normalise import normalise
from experiments.grading.units import split_unit

from .labelled_pairs import EQUAL, UNEQUAL, pairs


@pytest.mark.parametrize(("answer", "true"), pairs(EQUAL), ids=str)
def test_equal_answers(answer, true):
    assert equal(answer, true)
    assert equal(true, answer)


@pytest.mark.parametrize(("answer", "true"), pairs(UNEQUAL), ids=str)
def test_unequal_answers(answer, true):
    assert not equal(answer, true)
    assert not equal(true, answer)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789 .,$%^_{}()[]\\-+=<>|:abxfrctsqepmi", min_size=1, max_size=30))
def test_an_answer_is_equal_to_itself_and_normalising_settles(text):
    if text.strip():
        assert quick(text, text) is True
        assert quick(f" {text} ", text) is True
    once = normalise(text)
    assert normalise(once) == normalise(normalise(once))


@given(st.integers(-(10**12), 10**12))
def test_integers_however_they_are_grouped(n):
    forms = [f"{n}", f"{n:,}", f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", "\\,"),
             f"{n:,}".replace(",", " "), f"\\text{{{n}}}", f"{n}.0", f"\\${n}", f"{n}^\\circ"]  # fmt: skip
    for form in forms:
        assert quick(form, str(n)) is not False
        assert read_literal(normalise(form)).value == n
        assert quick(form, str(n + 1)) is False or "," in form


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_however_they_are_written(a, b):
    forms = [f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{2 * a}}}{{{2 * b}}}", f"{a}/{b}", f"{a / b:.17g}"]
    for form in forms[:3]:
        assert quick(form, forms[0])
        assert not quick(form, f"\\frac{{{a}}}{{{b + 1000}}}") or a == 0


def test_units_are_told_from_products():
    for text in ("5x", "3ab", "2\\pi", "5 + 3", "x", "2\\sqrt{3}", "12t", "4 ab"):
        assert split_unit(text) == (text, "")
    for text in (
        "5 cm",
        "5cm",
        "5\\text{m}",
        "5 apples",
        "5 square feet",
        "2\\sqrt{3}\\text{ feet}",
    ):
        assert split_unit(text)[1]


@pytest.mark.parametrize("piece", [" ", "1 ", "1,", "\\,", "{", "(", "\\text{", "\\frac", "\\pm ", "$",
                                   "a b ", "=", "\\sqrt(", ".", "0.3", "\\ ", "-", "_"])  # fmt: skip
def test_a_thousand_characters_of_anything_are_decided_soon(piece):
    text = (piece * 1000)[:999]
    start = time.process_time()
    quick(text, "5")
    quick(f"1{text}!"[:999], "5")
    assert time.process_time() - start < 2
