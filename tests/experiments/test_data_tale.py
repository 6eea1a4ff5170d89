"""Tales against a reader of their sentences: answers, styles, slips, repairs, disjoint splits."""

import itertools
import re

import pytest

from experiments.data.chain import OPERANDS, SPLITS, apply, draw_misconceptions
from experiments.data.tale import NAMES, REVISION, TaleSource, true_steps
from experiments.grading import last_boxed

RULES = [
    (r"(\w+) has (\d) more than (\w+)", "+"),
    (r"(\w+) has (\d) and what (\w+) has", "+"),
    (r"(\w+) has (\d) less than (\w+)", "-"),
    (r"(\w+) lacks (\d) of what (\w+) has", "-"),
    (r"(\w+) has (\d) times what (\w+) has", "*"),
    (r"(\w+) has (\d) for each of (\w+)'s", "*"),
]
IDLE = r"It is hot|It rains|It is late|\w+ is \d"
STEP = re.compile(
    r"So (?P<who>\w+): (?P<of>\w+) (?P<before>\d)(?P<op>[-+*])(?P<n>\d), (?P=who) (?P<value>\d)"
)


def read(problem):
    """Who is asked for, and by name what is given or (operation, number, of whom)."""
    *sentences, question = re.split(r"(?<=[.?]) ", problem.removeprefix("Tale: "))
    known = {}
    for sentence in sentences:
        text = sentence.removesuffix(".")
        if given := re.fullmatch(r"(\w+) has (\d)", text):
            known[given[1]] = int(given[2])
            continue
        found = [(m, op) for rule, op in RULES if (m := re.fullmatch(rule, text))]
        if not found:
            assert re.fullmatch(IDLE, text), sentence
            continue
        ((match, operation),) = found
        who, *others = match.groups()
        (n,) = (int(x) for x in others if x.isdigit())
        (of,) = (x for x in others if not x.isdigit())
        assert who not in known
        known[who] = (operation, n, of)
    return re.fullmatch(r"What has (\w+)\?", question)[1], known


def solve(who, known):
    """What somebody has, and the names on the way, from the first."""
    rule = known[who]
    if isinstance(rule, int):
        return rule, [who]
    value, names = solve(rule[2], known)
    return apply(value, rule[0], rule[1]), [*names, who]


def parse(reference):
    """The plan's names, who has what from the start, steps as dicts, and the boxed answer."""
    *lines, boxed = reference.split(".\n\n")
    plan = lines.pop(0)[4:].split(" by ") if lines[0].startswith("For ") else None
    steps = [STEP.fullmatch(line.removeprefix(REVISION)).groupdict() for line in lines[1:]]
    assert re.fullmatch(r"\\boxed\{\d\}", boxed)
    who, value = re.fullmatch(r"So (\w+) (\d)", lines[0]).groups()
    return plan, (who, int(value)), steps, last_boxed(boxed)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("style", ["plan", "sweep"])
def test_references_are_right_and_in_their_style(split, style):
    lengths = set()
    for example in TaleSource(split, size=300, style=style):
        asked, known = read(example.problem)
        value, chain = solve(asked, known)
        plan, first, steps, boxed = parse(example.reference)
        assert boxed == example.answer == str(value)
        assert first == (chain[0], known[chain[0]])
        assert plan == (chain[::-1] if style == "plan" else None)
        names = [step["who"] for step in steps]
        if style == "sweep":
            assert sorted(names) == sorted(set(known) - {chain[0]}) and len(names) >= len(chain)
        else:
            assert names == chain[1:]
        have = {chain[0]: known[chain[0]]}
        for step in steps:
            operation, n, of = known[step["who"]]
            assert (step["op"], int(step["n"]), step["of"]) == (operation, n, of) and n in OPERANDS
            assert int(step["before"]) == have[of]
            have[step["who"]] = int(step["value"])
            assert have[step["who"]] == apply(have[of], operation, n)
        lengths.add(len(chain) - 1)
    assert lengths == ({5, 6, 7} if split == "long" else {2, 3, 4})


@pytest.mark.parametrize("split", ["test", "long"])
def test_true_steps_are_those_of_a_right_sweep(split):
    for example in TaleSource(split, size=200):
        _, _, steps, _ = parse(example.reference)
        assert true_steps(example.problem) == {
            s["who"]: (s["of"], int(s["before"]), s["op"], int(s["n"]), int(s["value"]))
            for s in steps
        }
    assert true_steps("a=3,b=+8?") is None


def test_styles_are_drawn():
    def drawn(style):
        found = set()
        for example in TaleSource("train", size=200, style=style):
            found.add("plan" if parse(example.reference)[0] else "sweep")
        return found

    assert drawn("both") == {"plan", "sweep"}


def test_a_sweep_takes_more_than_one_order():
    """What makes a teacher uncertain of a step's beginning."""
    free = 0
    for example in TaleSource("test", size=300):
        _, known = read(example.problem)
        _, first, steps, _ = parse(example.reference)
        done, choices = {first[0]}, 0
        for step in steps:
            choices += (
                sum(n not in done and known[n][2] in done for n in known if n not in done) > 1
            )
            done.add(step["who"])
        free += choices > 0
    assert free > 200


def test_misconceptions_show_at_their_rate_and_spread():
    wrong = draw_misconceptions(60, 0)
    used = slipped = 0
    for example in TaleSource("test", size=1000, misconceptions=60):
        asked, known = read(example.problem)
        _, first, steps, boxed = parse(example.reference)
        have = dict([first])
        for step in steps:
            operation, n, of = known[step["who"]]
            assert int(step["before"]) == have[of]  # an error goes on
            fact, value = (have[of], operation, n), int(step["value"])
            if fact in wrong:
                used, slipped = used + 1, slipped + (value == wrong[fact])
                assert value in (wrong[fact], apply(*fact))
            else:
                assert value == apply(*fact)
            have[step["who"]] = value
        assert boxed == str(have[asked])
    assert 0.70 < slipped / used < 0.80


def test_a_repair_is_a_wrong_step_and_the_right_one():
    options = {"style": "both", "size": 500}
    repaired = total = 0
    for plain, example in zip(
        TaleSource("train", **options), TaleSource("train", repairs=0.2, **options), strict=True
    ):
        assert example.problem == plain.problem and example.answer == plain.answer
        *lines, boxed = example.reference.split(".\n\n")
        assert last_boxed(boxed) == example.answer
        total += sum(": " in line and not line.startswith(REVISION) for line in lines)
        for slip, right in itertools.pairwise(lines):
            if right.startswith(REVISION):
                a, b = STEP.fullmatch(slip), STEP.fullmatch(right.removeprefix(REVISION))
                assert a["value"] != b["value"]
                assert a.group("who", "before", "op", "n") == b.group("who", "before", "op", "n")
                repaired += 1
    assert 0.17 < repaired / total < 0.23


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
