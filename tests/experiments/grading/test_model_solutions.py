"""Agreement with labels on what models wrote, and of published answers with themselves."""

import functools
import itertools
import json
import re
from pathlib import Path

import pytest

from experiments.grading import find_answer, judge
from experiments.grading.compare import equal

from ...real_files import DATA

SOLUTIONS = [
    json.loads(line)
    for line in Path(__file__).with_name("gsm8k_model_solutions.jsonl").read_text().splitlines()
]
# How else the same models' last line, "A: 18", could have been written.
REWRITTEN = {
    "as they are": "A: {}",
    "alone": "{}",
    "hashes": "#### {}",
    "prose": "The answer is {}.",
    "bold prose": "**Final Answer:** **{}**",
    "money": "So it is:\n\n**${}**",
    "tag": "<answer>{}</answer>",
    "box": "Therefore \\boxed{{{}}}",
    "text in a box": "Therefore $\\boxed{{\\text{{{}}}}}$",
    "unbraced box": "Therefore \\fbox {{{}}}.",
}


@pytest.mark.parametrize("mode", ["boxed", "flexible"])
@pytest.mark.parametrize("form", REWRITTEN)
def test_labels_of_gsm8k_model_solutions(form, mode):
    """114 solutions of four models, 49 of them right: decimals, minus signs, commas, cut-off ones."""
    assert len(SOLUTIONS) == 114
    assert sum(s["right"] for s in SOLUTIONS) == 49
    for s in SOLUTIONS:
        text = re.sub(r"\nA: (.*)$", lambda m: "\n" + REWRITTEN[form].format(m[1]), s["solution"])
        verdict = judge(text, s["answer"], mode)
        assert verdict.right is s["right"], (text, s["answer"], verdict)
        assert not verdict.timed_out


def test_the_last_number_stands_in_where_nothing_is_marked():
    right = [s for s in SOLUTIONS if s["right"] and s["solution"].startswith(("She", "He", "The"))]
    assert right
    for s in right:
        unmarked = f"{s['solution'].rpartition('A: ')[0]}so that makes {s['answer']} of them."
        assert not judge(unmarked, s["answer"]).right
        assert judge(unmarked, s["answer"], "flexible").right


@functools.cache
def published_answers() -> list[str]:
    answers: set[str] = set()
    for name in ("math500/test.jsonl", "hmmt_feb_2025/hmmt_feb_2025.jsonl", "aime25/test.jsonl"):
        lines = (DATA / name).read_text().splitlines()
        answers |= {str(json.loads(line)["answer"]) for line in lines}
    rows = json.loads((DATA / "math_train_prompts" / "math.json").read_text())
    answers |= {row["answer"] for row in rows if row["answer"]}
    return sorted(answer for answer in answers if answer.strip())


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs real data beside the repository")


@needs_data
@pytest.mark.parametrize(
    "form",
    [
        "So $\\boxed{%s}$.",
        "So $\\boxed{%s\\,}$.",
        "Hence \\fbox{\\displaystyle %s.}",
        "The answer is $%s$.",
        "Thus the final answer is \\(%s\\). I hope it is correct.",
        "**Answer:** %s",
        "Therefore, the answer is: **%s**",
        "## Final Answer\n\n$$%s$$",
        "<answer>\n$%s$\n</answer>",
    ],
)
def test_every_published_answer_is_met_by_itself(form):
    """3,000 different answers of MATH, HMMT and AIME."""
    answers = [a for a in published_answers() if "\n" not in a]
    assert len(answers) > 3_000
    missed = []
    for answer in answers:
        found = find_answer(form % answer)
        if found is None or not equal(found, answer):
            missed.append((answer, found))
    assert not missed


@needs_data
def test_published_answers_are_told_apart():
    """Neighbours in alphabetical order are alike. Those found equal differ in units or spelling."""

    def plain(answer: str) -> str:
        answer = re.sub(r"\\(?:text\w*|mbox) ?\{[^{}]*\}(?:\^\d)?", "", answer)
        answer = re.sub(r"\^\{?\\circ\}?|\\%|\\!|[\s{},.]|(?<=\.\d)0\b|(?<=\d)\.00?$", "", answer)
        return re.sub(r"\\[dt]frac", r"\\frac", answer)

    answers = [a for a in published_answers() if "\n" not in a]
    same = [(a, b) for a, b in itertools.pairwise(answers) if equal(a, b)]
    assert len(same) < 80
    odd = [(a, b) for a, b in same if plain(a) != plain(b)]
    assert set(odd) <= {
        ("137 \\frac{1}{2}", "137.5\\text{ degrees}"),
        ("\\text{(E)}", "\\text{(E)},"),
        ("2.5", "2.50"),
        ("0.2", "0.20"),
    }
