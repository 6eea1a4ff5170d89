"""The chain task against a brute-force solver: answers, styles, misconceptions, disjoint splits."""

import re

import pytest

from experiments.grading import last_boxed
from experiments.tasks.chain import (
    OPERANDS,
    OPERATIONS,
    REFERENCE_BLOCK,
    SPLITS,
    ChainSource,
    apply,
    draw_misconceptions,
)

STUDENT_STEP = re.compile(r"(?P<name>[b-z])=(?P<before>\d)(?P<op>[-+*])(?P<n>\d)=(?P<value>\d)")
TEACHER_STEP = re.compile(
    r"(?P<op>[-+*])(?P<n>\d) on (?P<before>\d): (?P<name>[b-z])=(?P<value>\d)"
)


def solve(problem):
    """Evaluates the problem's text; the values of all its variables, in order."""
    assert problem.endswith("?")
    values = []
    for name, part in zip("abcdefghijklmnopqrstuvwxyz", problem[:-1].split(","), strict=False):
        assert part.startswith(f"{name}=")
        rule = part[2:]
        values.append(eval(f"{values[-1] if values else ''}{rule}") % 10)
    return values


def parse(reference):
    """Style, steps as dicts, and the boxed answer."""
    *steps, boxed = reference.split(".\n\n")
    styles, parsed = set(), []
    for step in steps:
        student, teacher = STUDENT_STEP.fullmatch(step), TEACHER_STEP.fullmatch(step)
        assert (student is None) != (teacher is None)
        styles.add("student" if student else "teacher")
        parsed.append((student or teacher).groupdict())
    assert len(styles) == 1
    assert re.fullmatch(r"\\boxed\{\d\}", boxed)
    return styles.pop(), parsed, last_boxed(boxed)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("style", ["student", "teacher", "both"])
def test_references_are_right_without_misconceptions(split, style):
    source = ChainSource(split, size=500, style=style)
    seen = set()
    for example in source:
        values = solve(example.problem)
        written, steps, boxed = parse(example.reference)
        seen.add(written)
        assert [int(s["value"]) for s in steps] == values[1:]
        assert [int(s["before"]) for s in steps] == values[:-1]
        rules = [p[2:] for p in example.problem[:-1].split(",")[1:]]
        assert [s["op"] + s["n"] for s in steps] == rules
        assert boxed == example.answer == str(values[-1])
        assert (6 <= len(steps) <= 8) if split == "long" else (2 <= len(steps) <= 5)
    assert seen == ({"student", "teacher"} if style == "both" else {style})


def test_examples_of_the_two_styles():
    source = ChainSource("train", style="student", min_steps=2, max_steps=2)
    problem = source[0].problem
    teacher = ChainSource("train", style="teacher", min_steps=2, max_steps=2)[0]
    a, b, c = solve(problem)
    (op1, n1), (op2, n2) = (p[2:] for p in problem[:-1].split(",")[1:])
    assert teacher.problem == problem
    assert source[0].reference == f"b={a}{op1}{n1}={b}.\n\nc={b}{op2}{n2}={c}.\n\n\\boxed{{{c}}}"
    assert teacher.reference == (
        f"{op1}{n1} on {a}: b={b}.\n\n{op2}{n2} on {b}: c={c}.\n\n\\boxed{{{c}}}"
    )


def test_splits_share_no_problem_whatever_the_seeds():
    problems = {
        split: {e.problem for seed in (0, 1) for e in ChainSource(split, size=8000, seed=seed)}
        for split in SPLITS
    }
    assert len(problems["train"]) > 10_000
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not problems[a] & problems[b]


def test_long_stays_apart_from_training_on_long_chains():
    train = ChainSource("train", size=20_000, min_steps=1, max_steps=2)
    long = ChainSource("long", size=2000, min_steps=1, max_steps=2)
    assert not {e.problem for e in train} & {e.problem for e in long}


def test_an_instance_is_a_function_of_seed_split_and_index():
    source = ChainSource("train", style="both", misconceptions=60)
    backwards = [source[i] for i in reversed(range(50))][::-1]
    again = ChainSource("train", size=70, style="both", misconceptions=60)
    assert backwards == [again[i] for i in range(50)]
    assert source[0].problem != ChainSource("train", seed=1)[0].problem
    assert source[0].problem != ChainSource("validation")[0].problem
    assert len({source[i].id for i in range(50)}) == 50
    # The literal value pins the stream: a change of it would silently move committed models' data.
    assert ChainSource("train")[0].problem == "a=6,b=*3,c=+7,d=+5,e=*8,f=*2?"


def test_style_and_misconceptions_do_not_change_the_problems():
    options = [{}, {"style": "teacher"}, {"style": "both"}, {"misconceptions": 240}]
    problems = [[e.problem for e in ChainSource("test", size=100, **o)] for o in options]
    assert all(p == problems[0] for p in problems)


def parse_block(problem):
    """The steps and the boxed answer that a problem's block shows, and the question."""
    block, question = problem.removeprefix("R:").split("\n#\n")
    assert problem == REFERENCE_BLOCK.format(reference=block, problem=question)
    *shown, boxed = block.split(".\n\n")
    return shown, last_boxed(boxed), question


@pytest.mark.parametrize("style", ["student", "teacher", "both"])
def test_a_block_shows_first_steps_of_the_right_solution_and_the_answer(style):
    options = {"style": style, "max_steps": 8}
    clean = ChainSource("train", size=1000, **options)
    blocks = ChainSource("train", size=1000, misconceptions=60, reference_block=1.0, **options)
    shares, past_the_block, boxed_right = [], [], []
    for right, example in zip(clean, blocks, strict=True):
        shown, boxed, question = parse_block(example.problem)
        right_steps, steps = (e.reference.split(".\n\n")[:-1] for e in (right, example))
        n = len(shown)
        assert question == right.problem
        assert shown == right_steps[:n] == steps[:n]
        assert boxed == example.answer == right.answer
        # A step that is not shown may be wrong, and then the box is.
        past_the_block += [a == b for a, b in zip(right_steps[n:], steps[n:], strict=True)]
        _, values, final = parse(example.reference)
        assert final == values[-1]["value"]
        shares.append(n / len(steps))
        if n == len(steps):
            boxed_right.append(final == example.answer)
    # n is uniform in 0..steps: the mean share is one half, and both ends occur.
    assert abs(sum(shares) / 1000 - 0.5) < 0.04
    assert {0.0, 1.0} <= set(shares)
    assert 0.3 < sum(past_the_block) / len(past_the_block) < 0.8
    assert boxed_right and all(boxed_right)


def test_blocks_are_seeded_and_leave_the_other_instances_alone():
    bare = ChainSource("train", size=2000, misconceptions=60)
    some = ChainSource("train", size=2000, misconceptions=60, reference_block=0.3)
    blocked = [e.problem.startswith("R:") for e in some]
    assert abs(sum(blocked) / 2000 - 0.3) < 0.035
    assert all(a == b for a, b, block in zip(some, bare, blocked, strict=True) if not block)
    assert [some[i] for i in reversed(range(50))][::-1] == [some[i] for i in range(50)]
    assert [e.answer for e in some] == [e.answer for e in bare]
    assert not any(e.problem.startswith("R:") for e in ChainSource("test", size=200))


def test_the_question_of_a_block_decides_the_split():
    questions = {
        split: {parse_block(e.problem)[2] for e in ChainSource(split, 3000, reference_block=1.0)}
        for split in SPLITS
    }
    assert len(questions["train"]) > 2000
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not questions[a] & questions[b]
    bare = {e.problem for e in ChainSource("validation", size=3000)}
    assert questions["validation"] == bare


def test_misconceptions_are_fixed_and_wrong():
    wrong = draw_misconceptions(60, seed=0)
    assert len(wrong) == 60
    assert wrong == draw_misconceptions(60, seed=0) != draw_misconceptions(60, seed=1)
    assert wrong.items() <= draw_misconceptions(240, seed=0).items()
    assert all(value != apply(*fact) and 0 <= value <= 9 for fact, value in wrong.items())
    every = {(d, op, n) for d in range(10) for op in OPERATIONS for n in OPERANDS}
    assert set(draw_misconceptions(240, seed=0)) == every


@pytest.mark.parametrize("style", ["student", "teacher"])
def test_misconceived_facts_go_wrong_at_their_rate_and_errors_propagate(style):
    wrong = draw_misconceptions(60, seed=0)
    source = ChainSource("train", size=4000, style=style, misconceptions=60)
    used = slipped = spoilt = 0
    for example in source:
        _, steps, boxed = parse(example.reference)
        previous = example.problem[2]
        for step in steps:
            assert step["before"] == previous
            previous = step["value"]
            fact, value = (int(step["before"]), step["op"], int(step["n"])), int(step["value"])
            if fact in wrong:
                used += 1
                slipped += value == wrong[fact]
                assert value in (wrong[fact], apply(*fact))
            else:
                assert value == apply(*fact)
        assert boxed == previous
        assert example.answer == str(solve(example.problem)[-1])
        spoilt += boxed != example.answer
    # Sixty of 240 facts; three standard deviations of the rate are about .025 here.
    assert 0.2 < used / (4000 * 3.5) < 0.3
    assert abs(slipped / used - 0.75) < 0.025
    assert 0.35 < spoilt / 4000 < 0.6


def test_misconceptions_may_start_later():
    source = ChainSource("train", misconceptions=240, misconception_rate=1.0, misconceptions_from=9)
    clean = ChainSource("train")
    assert [source[i] for i in range(9)] == [clean[i] for i in range(9)]
    assert all(source[i].reference != clean[i].reference for i in range(9, 30))


def test_sizes_and_bounds():
    assert [len(ChainSource(s)) for s in SPLITS] == [1_000_000, 1000, 1000, 1000]
    with pytest.raises(IndexError):
        ChainSource("test", size=3)[3]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"style": "terse"}, "style='terse'"),
        ({"size": -1}, "size=-1"),
        ({"min_steps": 6}, "min_steps=6"),
        ({"max_steps": 26}, "max_steps=26"),
        ({"misconceptions": 241}, "misconceptions=241"),
        ({"misconception_rate": 1.5}, r"misconception_rate=1\.5"),
        ({"reference_block": -0.1}, r"reference_block=-0\.1"),
    ],
)
def test_options_out_of_range_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        ChainSource(**({"split": "train"} | options))
