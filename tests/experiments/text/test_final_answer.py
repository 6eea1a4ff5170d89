"""Where the final answer of a text stands: boxes, marks, prose, last lines; and where there is none."""

import time

import pytest

from experiments.text.boxes import boxed_answer, find_boxes, last_boxed
from experiments.text.final_answer import final_text, find_answer
from experiments.text.gsm8k import worked_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed {42}", "42"),
        ("\\boxed\n{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("Thus $n=\\boxed 2$.", "2"),
        ("Thus $n=\\boxed{2}$ or \\fbox{9}.", "2, 9"),
        ("$\\boxed\\frac12$", "\\frac12"),
        ("it is \\boxed 42.", "42"),
        ("\\boxed{1}, \\boxed{2}", "1, 2"),
        ("$\\boxed{1}$ and $\\boxed{2}$", "1, 2"),
        ("$x=\\boxed{1}$, $y=\\boxed{2}$", "1, 2"),
        ("\\boxed{5}\n\n\\boxed{5}", "5"),
        ("First \\boxed{1}. But that was wrong, so \\boxed{2}", "2"),
        ("\\boxed{\\boxed{5}}", "\\boxed{5}"),
        ("\\boxed{5}, as the \\boxed command shows.", "5"),
        ("\\boxed{2} and then \\boxed{1", None),
        ("\\boxed{1}, \\boxed{2", None),
        ("\\boxed{2} and then \\boxed", None),
        ("\\boxed{2} or rather \\boxed{}", ""),
        ("\\boxedness", None),
        ("no box", None),
    ],
)
def test_boxes(text, answer):
    assert boxed_answer(text) == answer
    if find_boxes(text):
        # Nothing else in the text is taken in place of a box that is cut off.
        assert find_answer(f"The answer is 7.\n#### 7\n{text}") == answer
        assert find_answer(f"The answer is 7. {text}", "flexible") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6*7=42\n#### 42", "42"),
        ("#### $1,250\n", "$1,250"),
        ("#### Step 3\nand so on", None),
        ("#### The final thoughts of it", None),
        ("<answer>42</answer>", "42"),
        ("<Answer> The answer is 42. </Answer>", "42"),
        ("<answer>4", None),
        ("The answer is 3. <answer>4", None),
        ("Final Answer: **73**", "73"),
        ("**Answer: 73**", "73"),
        ("**Answer:** 73", "73"),
        ("# Answer\n\n42", "42"),
        ("ANSWER: 540", "540"),
        ("The answer is: \\(x = 2\\), as said", "\\(x = 2\\)"),
        ("The answer is\n\n\\[\n\\frac{1}{2}\n\\]\n", "\\[\n\\frac{1}{2}\n\\]"),
        ("The answers are $3$ and $4$.", "$3$ and $4$"),
        ("The answer to the question of Ann is 5.", "5"),
        ("The answer is therefore 1,250 (roughly).", "1,250"),
        ("The answer is $18 per day.", "$18 per day"),
        ("The answer is 18 dollars, since 9 times 2 is 18.", "18 dollars"),
        ("The answer is 5, not 6.", "5"),
        ("The answer is Janet makes $18 every day.", "$18"),
        ("So 42 is the answer.", "42"),
        ("The answer is 41. No:\nA: 42", "42"),
        ("The answer is not 5.", None),
        ("The answer isn't 5.", None),
        ("The answer is less than 5.", None),
        ("The answer is either 3 or 4.", None),
        ("She has 5.\nA: 18", "18"),
        ("Hence:\n\n**42**", "42"),
        ("Hence:\n\n$\\frac{1}{2}$.", "$\\frac{1}{2}$"),
        ("Total: 18 dollars", "18 dollars"),
        ("So\nx = 5", "x = 5"),
        ("b=3+8=1.\n\nc=1*2=2", None),
        ("so\nc=1*2", None),
        ("I counted 2", None),
        ("", None),
    ],
)
def test_answers_without_a_box(text, answer):
    assert find_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She makes 9*2 = $18 every day", "$18"),
        ("That leaves 10-3 of them, or 7.", "7"),
        ("It fell to -5 degrees", "-5"),
        ("In all 1,250.50!", "1,250.50"),
        ("a share of 3/4", "3/4"),
        ("The answer is twelve. I mean 12", "12"),
        ("no number", None),
    ],
)
def test_flexible_reading_falls_back_on_the_last_number(text, answer):
    assert find_answer(text, "flexible") == answer


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="answer='last' is none of boxed, flexible"):
        find_answer("5", "last")


@pytest.mark.parametrize(
    ("response", "final"),
    [
        ("a</think>b</think>c", "c"),
        ("<think>a</think>b", "b"),
        ("<think>a", ""),
        ("a<think>b", ""),
        ("<think>a</think>b<think>c", "b"),
        ("<reasoning>a</reasoning>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("a", "a"),
    ],
)
def test_thinking_is_no_answer(response, final):
    assert final_text(response) == final


def test_worked_answers_of_gsm8k():
    assert worked_answer("6*7=<<6*7=42>>42\n#### 1,042 ") == ("6*7=42", "1042")
    assert worked_answer("#### 5") == ("", "5")
    assert worked_answer("no answer") is None
    assert worked_answer("####") is None
    assert worked_answer("#### 5\nand more") is None


@pytest.mark.parametrize("piece", [" ", "a ", "$", "\\boxed", "\\boxed{", "answer is ", "#### ", "*",
                                   "\n", "<answer>", "<think>", "1,", "\\(", "\\[", "- "])  # fmt: skip
def test_long_texts_are_read_in_linear_time(piece):
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    for mode in ("boxed", "flexible"):
        find_answer(f"The answer is {text}x", mode)
        find_answer(text, mode)
    final_text(text)
    last_boxed(text)
    worked_answer(f"####{text}")
    assert time.process_time() - start < 5
