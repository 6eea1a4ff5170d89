"""Grading: equal and unequal answers, thinking text, hostile input, threads, speed."""

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.sources import load_source
from experiments.grading import grade, grade_choice, last_boxed, verdicts
from experiments.tasks.chain import ChainSource

from ...real_files import DATA
from .labelled_answers import BOXED

MATH500 = DATA / "math500" / "test.jsonl"


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(verdicts, "TIME_LIMIT_SECONDS", 1.0)
    verdicts._compare.cache_clear()


@pytest.mark.parametrize(
    ("boxed", "answer", "right"),
    [
        ("7", "7", True),
        ("7", "8", False),
        ("073", "73", True),
        ("-3", "3", False),
        ("73.", "73", True),
        ("\\frac12", "0.5", True),
        ("\\dfrac{2}{4}", "\\frac{1}{2}", True),
        ("0.3", "\\frac{1}{3}", False),
        ("1,152", "1152", True),
        ("\\$18", "18", True),
        ("336", "336^\\circ", True),
        ("x=5", "5", True),
        ("(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("(\\pi/2, 3)", "\\left( 3, \\frac{\\pi}{2} \\right)", False),
        ("\\{2, 1\\}", "\\{1,2\\}", True),
        ("Evelyn", "\\text{Evelyn}", True),
        ("Angela", "\\text{Evelyn}", False),
        ("(x+1)^2", "x^2+2x+1", True),
        ("", "", False),
    ],
)
def test_boxed_answers(boxed, answer, right):
    assert grade(f"So it is $\\boxed{{{boxed}}}$.", answer) is right


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("\\boxed{1} and, corrected, \\boxed{2}", True),
        ("\\boxed{2} and, corrected, \\boxed{1}", False),
        ("\\boxed{2} and then \\boxed{1", False),
        ("<think>\\boxed{1}</think> \\boxed{2}", True),
        ("\\boxed{1}</think> \\boxed{2}", True),
        ("\\boxed{2}</think> so it is done", False),
        ("<think>\\boxed{2}", False),
        ("The answer is 2.", True),
        ("The final answer is $3$.", False),
        ("b=3+8=1.\n\nc=1*2=2", False),
        ("I counted 2", False),
        ("", False),
    ],
)
def test_where_the_answer_is_looked_for(response, right):
    assert grade(response, "2") is right


@given(st.text(alphabet="{}\\boxed ab", max_size=60), st.text(alphabet="ab1+ ", max_size=10))
def test_last_boxed_finds_what_was_written(before, inside):
    assert last_boxed(f"{before} \\boxed{{{inside}}}") == inside.strip()
    assert last_boxed(f"{before} \\boxed{{a{{{inside}}}b}} after") == f"a{{{inside}}}b"


@given(st.text(alphabet="{}\\boxed", max_size=60))
def test_last_boxed_of_anything_is_balanced(text):
    found = last_boxed(text)
    if found is not None:
        # Escaped pairs read from the left, as TeX does.
        plain = found
        for escaped in ("\\\\", "\\{", "\\}"):
            plain = plain.replace(escaped, "")
        assert "\\boxed{" + found in text or found == found.strip()
        assert plain.count("{") == plain.count("}")


def test_escaped_braces_do_not_count():
    assert last_boxed("\\boxed{\\{1, 2\\}} }") == "\\{1, 2\\}"
    assert last_boxed("\\boxed{a \\} b") is None


@pytest.mark.parametrize(
    "content",
    [
        "10^{10^{10}}",
        "9^{9^{9^{9}}}",
        "10**10**10",
        "1000000000!",
        "(" * 400 + "1" + ")" * 400,
        "{" * 400 + "1" + "}" * 400,
        "1" * 900,
        "1" * 100_000,
        ". " * 50_000 + "x",
        "\\text{" * 20_000 + "}" * 20_000,
        "\x00\ud800",
        "\\frac{1}{0}",
    ],
)
def test_hostile_answers_end_and_are_wrong(content, short_limit):
    start = time.monotonic()
    assert grade(f"\\boxed{{{content}}}", "5") is False
    assert grade_choice(f"\\boxed{{{content}}}", "B", ("a", "b")) is False
    assert grade_choice(f"The answer {content}", "B", ("a", "b")) is False
    assert time.monotonic() - start < 10
    # And the next answer is graded as if nothing had happened.
    assert grade("\\boxed{\\frac{10}{2}}", "5") is True


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("\\boxed{\\text{(B)}}", True),
        ("\\boxed{B) blue}", True),
        ("\\boxed{Blue.}", True),
        ("\\boxed{A}</think> The answer is **(B)**.", True),
        ("Answer: $B$", True),
        ("The answer is A. No, the answer is B", True),
        ("\\boxed{red}", False),
        ("\\boxed{Because}", False),
        ("\\boxed{A, B}", False),
        ("<think>\\boxed{B}", False),
        ("A better answer is hard to find", False),
        ("I like B", False),
        ("", False),
    ],
)
def test_multiple_choice(response, right):
    choices = ("red", "blue", "\\frac{1}{2}")
    assert grade_choice(response, "B", choices) is right
    assert grade_choice("\\boxed{0.5}", "C", choices)


def test_hand_labelled_answers():
    """Fractions, units, intervals, sets, tuples, expressions and words; and where answers stand."""
    assert len(BOXED) >= 100
    assert sum(label for *_, label in BOXED) < 0.7 * len(BOXED)
    for boxed, answer, label in BOXED:
        assert grade(f"<think>\\boxed{{9}}</think> So it is $\\boxed{{{boxed}}}$.", answer) is label, (
            boxed, answer
        )  # fmt: skip


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_solutions_that_come_along(name):
    examples = list(load_source({"name": f"sample/{name}"}))
    assert all(grade(e.reference, e.answer) for e in examples)
    assert all(grade(f"The final answer is ${e.answer}$.", e.answer) for e in examples)
    wrong = [(e, other) for e, other in itertools.pairwise(examples) if e.answer != other.answer]
    assert not any(grade(other.reference, e.answer) for e, other in wrong)


def test_long_responses_are_read_in_linear_time():
    start = time.monotonic()
    assert grade("\\boxed{" * 200_000, "5") is False
    assert grade("{" * 1_000_000 + "\\boxed{5}", "5") is True
    assert grade("the answer is " * 100_000, "5") is False
    assert time.monotonic() - start < 10


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80))
def test_any_text_gets_a_verdict(text):
    assert grade(text, "17") in (True, False)
    assert grade(f"\\boxed{{{text}}}", "17") in (True, False)


def test_threads_may_grade_at_once():
    verdicts = {}

    def work(i):
        verdicts[i] = [
            grade(f"\\boxed{{\\frac{{{6 * i}}}{{3}}}}", str(2 * i)),
            grade("\\boxed{a}", "b"),
        ]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert verdicts == {i: [True, False] for i in range(1, 5)}


def test_a_thousand_embedded_responses_take_no_time():
    right = list(ChainSource("test", style="student"))
    wrong = list(ChainSource("test", style="teacher", misconceptions=240, misconception_rate=1.0))
    start = time.monotonic()
    assert all(grade(e.reference, e.answer) for e in right)
    spoilt = [last_boxed(e.reference) != e.answer for e in wrong]
    assert [not grade(e.reference, e.answer) for e in wrong] == spoilt
    assert sum(spoilt) > 500
    assert time.monotonic() - start < 2


@pytest.mark.skipif(not MATH500.is_file(), reason="needs MATH-500 beside the repository")
def test_reference_solutions_of_math500_are_right():
    examples = list(load_source({"name": str(MATH500), "size": 100}))
    assert all(grade(e.reference, e.answer) for e in examples)
    # The thin space takes them past plain comparison, to math-verify.
    assert all(grade(f"\\boxed{{{e.answer}\\,}}", e.answer) for e in examples)
    shifted = itertools.pairwise(examples)
    assert sum(grade(f"\\boxed{{{a.answer}}}", b.answer) for a, b in shifted) <= 3
