"""Tales against a reader of their sentences: answers, styles, slips, repairs, disjoint splits."""

import itertools
import re

import pytest

from experiments.grading import last_boxed
from experiments.tasks.chain import OPERANDS, SPLITS, apply, draw_misconceptions
from experiments.tasks.tale import NAMES, REVISION, TaleSource
from experiments.tasks.tale_steps import true_steps
from experiments.tasks.tale_tokenizer import save_tale_tokenizer
from models.embedded import tokenizer_directory
from models.text.tokenizer import load_tokenizer

RULES = [
    (r"(\w+) has (\d) more than (\w+)", "+"),
    (r"(\w+) has (\d) and what (\w+) has", "+"),
    (r"(\w+) has (\d) less than (\w+)", "-"),
    (r"(\w+) lacks (\d) of what (\w+) has", "-"),
    (r"(\w+) has (\d) times what (\w+) has", "*"),
    (r"(\w+) has (\d) for each of (\w+)'s", "*"),
]
IDLE = r"It is hot|It rains|It is late|\w+ is \d|\w+ is \d older than \w+"
SUM = r"(?P<before>\d) (?P<op>[-+*]) (?P<n>\d)"
STEPS = {
    "names": re.compile(rf"(?P<who>\w+): (?P<of>\w+) {SUM}, (?P=who) (?P<value>\d)"),
    "plan": re.compile(rf"So {SUM} is (?P<value>\d)"),
}


def read(problem):
    """The first name and its number, and the rules (who, operation, number, of whom), as told."""
    title, *sentences, question = problem.split("\n")
    assert title == "Tale:"
    rules, idle, first = [], 0, None
    for sentence in sentences:
        text = sentence.removesuffix(".")
        if given := re.fullmatch(r"(\w+) has (\d)", text):
            assert first is None
            first = given[1], int(given[2])
            continue
        found = [(m, op) for rule, op in RULES if (m := re.fullmatch(rule, text))]
        if found:
            ((match, operation),) = found
            rules.append((match[1], operation, int(match[2]), match[3]))
        else:
            assert re.fullmatch(IDLE, text), sentence
            idle += 1
    assert 1 <= idle <= 3
    assert re.fullmatch(r"What has (\w+)\?", question)[1] == rules[-1][0]
    return first, rules


def parse(reference):
    """The style, the first line, the steps as dicts, and the boxed answer."""
    first, *lines, boxed = reference.split(".\n\n")
    style = "plan" if first.startswith("From ") else "names"
    steps = [STEPS[style].fullmatch(line.removeprefix(REVISION)).groupdict() for line in lines]
    assert re.fullmatch(r"\\boxed\{\d\}", boxed)
    return style, first, steps, last_boxed(boxed)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("style", ["names", "plan"])
def test_references_are_right_and_in_their_style(split, style):
    lengths = set()
    for example in TaleSource(split, size=300, style=style):
        (name, value), rules = read(example.problem)
        written, first, steps, boxed = parse(example.reference)
        assert written == style
        plan = ", ".join(f"{operation} {n}" for _, operation, n, _ in rules)
        assert first == (
            f"{name}: given, {name} {value}" if style == "names" else f"From {value}: {plan}"
        )
        for (who, operation, n, of), step in zip(rules, steps, strict=True):
            assert of == name and n in OPERANDS
            assert int(step["before"]) == value
            assert (step["op"], int(step["n"])) == (operation, n)
            assert style == "plan" or (step["who"], step["of"]) == (who, of)
            name, value = who, apply(value, operation, n)
            assert int(step["value"]) == value
        assert boxed == example.answer == str(value)
        lengths.add(len(rules))
    assert lengths == ({6, 7, 8} if split == "long" else {2, 3, 4, 5})


@pytest.mark.parametrize("split", ["test", "long"])
def test_true_steps_are_those_of_a_right_reference(split):
    for example in TaleSource(split, size=200):
        _, _, steps, _ = parse(example.reference)
        assert true_steps(example.problem) == [
            (s["who"], s["of"], int(s["before"]), s["op"], int(s["n"]), int(s["value"]))
            for s in steps
        ]
    assert true_steps("a=3,b=+8?") is None


def test_styles_are_drawn():
    def drawn(style):
        return {
            parse(example.reference)[0] for example in TaleSource("train", size=200, style=style)
        }

    assert drawn("both") == {"names", "plan"}


def test_misconceptions_show_at_their_rate_and_spread():
    wrong = draw_misconceptions(60, 0)
    used = slipped = 0
    for example in TaleSource("test", size=1000, misconceptions=60):
        (_, have), rules = read(example.problem)
        _, _, steps, boxed = parse(example.reference)
        for (_, operation, n, _), step in zip(rules, steps, strict=True):
            assert int(step["before"]) == have  # an error goes on
            fact, value = (have, operation, n), int(step["value"])
            if fact in wrong:
                used, slipped = used + 1, slipped + (value == wrong[fact])
                assert value in (wrong[fact], apply(*fact))
            else:
                assert value == apply(*fact)
            have = value
        assert boxed == str(have)
    assert 0.70 < slipped / used < 0.80


def test_a_repair_is_a_wrong_step_and_the_right_one():
    options = {"style": "both", "size": 500}
    repaired = total = 0
    for plain, example in zip(
        TaleSource("train", **options), TaleSource("train", repairs=0.2, **options), strict=True
    ):
        assert example.problem == plain.problem and example.answer == plain.answer
        style, *_ = parse(example.reference)
        _, *lines, boxed = example.reference.split(".\n\n")
        assert last_boxed(boxed) == example.answer
        total += sum(not line.startswith(REVISION) for line in lines)
        for slip, right in itertools.pairwise(lines):
            if right.startswith(REVISION):
                a = STEPS[style].fullmatch(slip).groupdict()
                b = STEPS[style].fullmatch(right.removeprefix(REVISION)).groupdict()
                assert a.pop("value") != b.pop("value")
                assert a == b
                repaired += 1
    assert 0.17 < repaired / total < 0.23


@pytest.mark.slow
def test_splits_share_no_problem_whatever_the_seeds():
    problems = {
        split: {e.problem for seed in (0, 1) for e in TaleSource(split, size=3000, seed=seed)}
        for split in SPLITS
    }
    assert all(not problems[a] & problems[b] for a in SPLITS for b in SPLITS if a != b)


def test_an_instance_is_a_function_of_seed_split_and_index():
    source = TaleSource("train", style="both", misconceptions=60, repairs=0.1)
    backwards = [source[i] for i in reversed(range(50))][::-1]
    assert backwards == list(
        TaleSource("train", size=50, style="both", misconceptions=60, repairs=0.1)
    )
    assert source[0].problem != TaleSource("train", seed=1)[0].problem
    assert [e.problem for e in TaleSource("train", size=50)] == [e.problem for e in backwards]
    with pytest.raises(IndexError, match="index 5"):
        TaleSource("test", size=5)[5]


@pytest.mark.slow
def test_the_embedded_tokenizer_is_what_the_code_learns(tmp_path):
    save_tale_tokenizer(tmp_path)
    embedded = tokenizer_directory("embedded:tale-tokenizer")
    for file in embedded.iterdir():
        assert (tmp_path / file.name).read_text() == file.read_text(), file.name


def test_words_numbers_and_ends_of_steps_are_single_tokens():
    tokenizer = load_tokenizer(tokenizer_directory("embedded:tale-tokenizer"))
    for example in TaleSource("long", size=100, style="both", repairs=0.1):
        for text in (example.problem, example.reference):
            pieces = re.findall(r" ?\w+| ?[^\w\s]+\n*", text)
            assert [tokenizer.decode([i]) for i in tokenizer.encode(text)] == pieces


def test_names_begin_with_letters_of_their_own():
    assert len({name[0] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"style": "student"}, "style='student'"),
        ({"size": -1}, "size=-1"),
        ({"min_steps": 5, "max_steps": 3}, "min_steps=5 and max_steps=3"),
        ({"max_steps": 13}, "max_steps=13"),
        ({"misconceptions": 241}, "misconceptions=241"),
        ({"misconception_rate": 1.5}, "misconception_rate=1.5"),
        ({"repairs": -0.1}, "repairs=-0.1"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TaleSource(**{"split": "test", **options})
