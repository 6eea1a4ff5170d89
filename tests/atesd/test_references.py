r"""References: forms of answers, ends of sentences, and where token ids may be cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atesd.references import Reference, sentence_ends, split_reference, tokenize_reference

TEXT = st.text(alphabet='ab.!?3 \n$")}é=', max_size=60)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("Add 1.\n\\boxed{8}", "Add 1.\n", "\\boxed{8}"),
        ("So it is $\\boxed{8}$.", "So it is $", "\\boxed{8}"),
        ("b=1.\n\n\\boxed{4}", "b=1.\n\n", "\\boxed{4}"),
        ("x \\fbox{8} y", "x ", "\\fbox{8}"),
        ("x \\boxed{\\frac{1}{2}} y", "x ", "\\boxed{\\frac{1}{2}}"),
        ("x \\boxed{\\{1, 2\\}}", "x ", "\\boxed{\\{1, 2\\}}"),
        ("x \\boxed{\\left\\{ 1 \\right.}", "x ", "\\boxed{\\left\\{ 1 \\right.}"),
        ("{a}} \\boxed{3} }", "{a}} ", "\\boxed{3}"),
        ("first \\boxed{1}, then \\boxed{2}.", "first \\boxed{1}, then ", "\\boxed{2}"),
        ("all \\boxed{\\fbox{3}}", "all ", "\\boxed{\\fbox{3}}"),
        ("done \\boxed{1}, or \\boxed{2", "done ", "\\boxed{1}"),
        ("open \\boxed{ and \\boxed{2}", "open \\boxed{ and ", "\\boxed{2}"),
        ("16-7=9.\n9*2=18\n#### 18", "16-7=9.\n9*2=18\n", "\\boxed{18}"),
        ("It is much.\n####  70,000 \n", "It is much.\n", "\\boxed{70000}"),
        ("A pair.\n#### (1, 2)", "A pair.\n", "\\boxed{(1, 2)}"),
        ("A box \\boxed{7} before.\n#### 8", "A box \\boxed{7} before.\n", "\\boxed{8}"),
        ("Both.\n#### \\boxed{42}", "Both.\n", "\\boxed{42}"),
        ("#### Part\nIt is \\boxed{5}.", "#### Part\nIt is ", "\\boxed{5}"),
        (" \n\\boxed{4}", "", "\\boxed{4}"),
    ],
)
def test_answers_in_the_text(text, reasoning, answer):
    assert split_reference(text, "unused") == Reference(reasoning, answer, True)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("Three and five are eight.", "Three and five are eight.\n"),
        ("Eight.\n", "Eight.\n"),
        ("It is \\boxed{8", "It is \\boxed{8\n"),
        ("#### Heading\nIt is eight.", "#### Heading\nIt is eight.\n"),
        ("", ""),
        ("  \n", ""),
    ],
)
def test_a_missing_answer_is_made_from_the_known_one(text, reasoning):
    assert split_reference(text, " 8 ") == Reference(reasoning, "\\boxed{8}", False)


def test_an_unknown_answer_is_refused():
    with pytest.raises(ValueError, match="no boxed answer and none is known"):
        split_reference("Who knows.", " ")


@pytest.mark.parametrize(
    "sentences",
    [
        ["One. ", "Two! ", "Three? ", "Four"],
        ["Pi is 3.14, or 3. ", "More"],
        ["Line\n", "another  \n\n", "last.\n"],
        ["See e.g. this, i.e. that. ", "5! = 120 and 4! - 1. ", "$x"],
        ['"Go." ', "(It is $x = 3.$) ", "\\(y = 2.\\) ", "He said: “no.”  ", "So"],
        ["Wait ... what? ", "Then"],
        ["b=3+8=1.\n\n", "c=1*4=4.\n\n"],
        ["  indented. ", "É"],
        ["no mark at all"],
        [],
    ],
)
def test_sentences(sentences):
    text = "".join(sentences)
    assert sentence_ends(text) == [len("".join(sentences[: i + 1])) for i in range(len(sentences))]


def test_white_space_alone_has_no_sentence():
    assert sentence_ends(" \n\n ") == []


@given(TEXT)
def test_sentences_by_a_character_loop(text):
    expected = []
    for end in range(1, len(text) + 1):
        before, after = text[:end].rstrip(), text[end:]
        gap = text[len(before) : end]
        if not before or after[:1].isspace() or not (gap or not after):
            continue
        mark = re.search(r"\S*\Z", before)[0].rstrip("\"')}$")[-1:] in (".", "!", "?")
        goes_on = bool(re.match(r"[a-zé=]", after))
        if not after or "\n" in gap or (mark and not goes_on):
            expected.append(end)
    assert sentence_ends(text) == expected


def encoder(pieces):
    """An encoder of the joined pieces; other text gets a token per character."""
    whole = "".join(pieces)

    def encode(text):
        parts = pieces if text == whole else list(text)
        ends = [len("".join(parts[: i + 1])) for i in range(len(parts))]
        return [1 + i for i in range(len(parts))], ends

    return encode


def tokenise(pieces, max_reasoning=1000, unit="sentence", answer="\\boxed{8}"):
    reference = Reference("".join(pieces), answer, True)
    return tokenize_reference(reference, [91, 92], [93], encoder(pieces), max_reasoning, unit)


def test_pieces_of_a_reference():
    got = tokenise(["On", "e.", " Two", " b", ".\n\n", "Th", "ree"])
    assert (got.head, got.tail) == ((91, 92), (93,))
    assert got.reasoning == (1, 2, 3, 4, 5, 6, 7)
    assert got.answer == tuple(range(1, 10))
    assert got.cuts == (0, 0, 2, 2, 2, 5, 5, 7)
    assert (got.had_answer, got.empty, got.overlong) == (True, False, False)
    assert tokenise(["On", "e.", " Two"], unit="token").cuts == (0, 1, 2, 3)


def test_a_token_that_spills_over_ends_the_sentence():
    assert tokenise(["a", "b.\n\nC", "d"]).cuts == (0, 0, 2, 3)
    assert tokenise(["One.", " ", " ", " Two"]).cuts == (0, 0, 0, 3, 4)
    # Bytes of one character share its end.
    pieces = ["“a.", "”", " B"]
    reference = Reference("".join(pieces), "8", True)

    def encode(text):
        return ([1, 2, 3, 4], [3, 4, 4, 6]) if text == reference.reasoning else ([5], [1])

    got = tokenize_reference(reference, [], [], encode, 10)
    assert got.cuts == (0, 0, 0, 3, 4)


def test_empty_reasoning():
    got = tokenise([])
    assert (got.reasoning, got.cuts, got.empty, got.overlong) == ((), (0,), True, False)


def test_overlong_reasoning_loses_its_end_at_a_cut():
    pieces = ["A", ". ", "B", ".\n", "C"]
    got = tokenise(pieces, max_reasoning=3)
    assert (got.reasoning, got.cuts, got.overlong) == ((1, 2), (0, 0, 2), True)
    assert tokenise(pieces, max_reasoning=4).cuts == (0, 0, 2, 2, 4)
    assert tokenise(pieces, max_reasoning=5).overlong is False
    got = tokenise(pieces, max_reasoning=1)
    assert (got.reasoning, got.cuts, got.empty, got.overlong) == ((), (0,), False, True)
    assert tokenise(pieces, max_reasoning=3, unit="token").reasoning == (1, 2, 3)


@given(st.data())
def test_cuts_are_ends_of_sentences(data):
    pieces = data.draw(st.lists(st.text('ab.!? \n"é', min_size=1, max_size=4), max_size=20))
    text = "".join(pieces)
    got = tokenise(pieces)
    ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
    assert len(got.cuts) == len(pieces) + 1 and got.cuts[-1] == len(pieces)
    allowed = {0, len(pieces)}
    for end in sentence_ends(text):
        stop = len(text[:end].rstrip())
        covering = next(i for i, e in enumerate(ends) if e >= stop) + 1
        blank = covering
        while blank < len(pieces) and ends[blank] <= end:
            assert pieces[blank].isspace()
            blank += 1
        allowed.add(blank)
    assert got.cuts == tuple(max(c for c in allowed if c <= n) for n in range(len(pieces) + 1))


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"exposure\.unit='word': choose one of"):
        tokenise(["a"], unit="word")
    with pytest.raises(ValueError, match=r"exposure\.max_reasoning=0"):
        tokenise(["a"], max_reasoning=0)


@pytest.mark.parametrize(
    "text",
    ["x" + " " * 100_000 + "y", "####" + " " * 100_000, "#### " * 50_000, "#### 1" + " " * 100_000],
)
def test_long_runs_of_spaces_take_no_time(text):
    """A pattern that tries again at every space takes minutes for these, and the suite ends it."""
    assert split_reference(text, "42").answer.startswith("\\boxed{")
