"""A study's numbers, table and pictures, from run directories made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.compare.arms import make_plan, seed_directory, selection_directory
from experiments.compare.settings import read_study
from experiments.compare.table.correction import self_correction, step_is_right
from experiments.compare.table.markdown import aligned
from experiments.compare.table.monitor import monitor
from experiments.compare.table.pictures import draw_accuracy, draw_monitor, draw_sweep
from experiments.compare.table.report import write_report
from experiments.compare.table.study import make_table
from experiments.evaluate.intervals import crossed_bootstrap

from ..study_runs import small_study, write_run

TRUE, FALSE = [True], [False]
TRAJECTORIES = [
    {"step": 1, "values": [0.9, 0.72, 0.1], "breach": 2, "root": 1},
    {"step": 1, "values": [0.9, 0.8], "breach": -1, "root": -1},
    {"step": 2, "values": [0.32, "nan"], "breach": 0, "root": 0},
    {"step": 2, "values": []},
]
PROBLEM = "a=3,b=+8,c=*4?"


@pytest.fixture
def study(tmp_path):
    """OPD and MOTAB with seeds 0 and 1; SKD with seed 1; a sweep of two."""
    plan = make_plan(read_study(small_study()))
    shares = {"backtracked": 0.25, "dropped": 0.0, "truncated": 0.1}

    def write(arm, seed, after, long, tokens, **more):
        config = plan.config(arm, seed, 1e-3, 32)
        right = {
            ("before", "test"): [FALSE, TRUE, FALSE, FALSE],
            ("teacher", "test"): [TRUE] * 4,
            ("after", "test"): after,
            ("after", "long"): long,
        }
        synthesis = {"trajectories": 64, "tokens": tokens, **more.pop("shares", {})}
        directory = seed_directory(tmp_path, arm, seed)
        write_run(directory, config, right, synthesis=synthesis, **more)

    write("opd", 0, [TRUE, TRUE, FALSE, FALSE], [FALSE, FALSE], {"student": 400})
    write("opd", 1, [TRUE, FALSE, FALSE, FALSE], [TRUE, FALSE], {"student": 600})
    write("skd-08", 1, [TRUE, FALSE, TRUE, FALSE], [FALSE, FALSE], {"student": 9, "teacher": 1})
    for seed in (0, 1):
        for arm, after in (
            ("motab", [TRUE, TRUE, TRUE, [True, False]]),
            ("motab-gamma-1", [TRUE] * 4),
        ):
            long = [TRUE, FALSE]
            tokens = {"teacher": 2, "student": 1500}
            write(arm, seed, after, long, tokens, shares=shares, trajectories=TRAJECTORIES)
        for rate, accuracy in ((3e-4, 0.25), (1e-3, 0.5), (3e-3, 0.25)):
            config = plan.selection_config("motab", rate, 32)
            directory = selection_directory(tmp_path, "motab", rate)
            write_run(directory, config, validation=(accuracy,))
    return plan, tmp_path


def test_accuracies_are_means_over_seeds_and_problems(study):
    table = make_table(*study)
    assert list(table["arms"]) == ["skd-08", "opd", "motab", "motab-gamma-1"]
    opd, motab = table["arms"]["opd"], table["arms"]["motab"]
    assert opd["seeds"] == [0, 1]
    assert opd["accuracy"]["test"]["mean"] == 0.375
    assert opd["accuracy"]["test"]["by_seed"] == [0.5, 0.25]
    assert opd["accuracy"]["long"]["mean"] == 0.25
    # The fourth problem has two samples.
    assert motab["accuracy"]["test"]["mean"] == 0.875
    expected = crossed_bootstrap(np.array([[1, 1, 0, 0], [1, 0, 0, 0]]))
    assert opd["accuracy"]["test"]["interval"] == [expected.low, expected.high]
    assert table["start"]["test"]["mean"] == 0.25
    assert table["start"]["long"] is None
    assert table["teacher"]["test"]["mean"] == 1.0
    assert table["same_start"]


def test_differences_are_paired_by_seed_and_problem(study):
    arms = make_table(*study)["arms"]
    opd = arms["motab"]["differences"]["opd"]
    expected = crossed_bootstrap(np.array([[0, 0, 1, 0.5], [0, 1, 1, 0.5]]))
    assert opd["test"]["mean"] == expected.mean == 0.5
    assert opd["test"]["interval"] == [expected.low, expected.high]
    assert opd["long"]["mean"] == 0.25
    # SKD has seed 1 alone.
    skd = arms["motab"]["differences"]["skd-08"]["test"]
    assert skd["seeds"] == 1
    assert skd["mean"] == pytest.approx(0.375)
    assert set(arms["opd"]["differences"]) == {"skd-08"}


def test_costs_are_means_over_seeds(study):
    arms = make_table(*study)["arms"]
    assert arms["opd"]["tokens"] == {"student": 500}
    assert list(arms["motab"]["tokens"]) == ["student", "teacher"]
    assert arms["opd"]["updates"] == 100 and arms["opd"]["loss_tokens"] == 1000
    # The first update, which compiles, takes 9 s.
    assert arms["opd"]["step_seconds"] == 0.5
    assert arms["opd"]["train_seconds"] == 10 and arms["opd"]["wall_seconds"] == 20
    assert arms["motab"]["shares"]["backtracked"] == 0.25
    assert arms["opd"]["shares"]["backtracked"] is None
    assert arms["motab"]["selection"] == {
        "rate": 1e-3,
        "validation": {"0.0003": 0.25, "0.001": 0.5, "0.003": 0.25},
        "at_end": False,
    }
    assert arms["opd"]["selection"] is None


def test_runs_on_different_problems_are_refused(study):
    plan, workdir = study
    directory = seed_directory(workdir, "opd", 1)
    lines = (directory / "samples" / "after-test.jsonl").read_text().splitlines(keepends=True)
    (directory / "samples" / "after-test.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"different problems of data\.test"):
        make_table(plan, workdir)


def test_runs_that_began_differently_are_told(study):
    plan, workdir = study
    path = seed_directory(workdir, "opd", 1) / "samples" / "before-test.jsonl"
    path.write_text(path.read_text().replace("false", "true"))
    assert not make_table(plan, workdir)["same_start"]
    write_report(plan, workdir, {}, "", 1.0)
    assert "students that answer differently" in (workdir / "table.md").read_text()


def test_monitor_counts_breaches_depths_and_values():
    seen = monitor([t for t in TRAJECTORIES if t.get("values")])
    assert seen["sampled"] == 3 and seen["breached"] == 2
    assert seen["breach_step"] == [0, 1, 0, 1]
    assert seen["breach_step_mean"] == 2
    assert seen["depth"] == [1, 1] and seen["depth_mean"] == 0.5
    counts = dict(enumerate(seen["v"]))
    assert {b: n for b, n in counts.items() if n} == {2: 1, 6: 1, 14: 1, 16: 1, 18: 2}
    assert seen["v_by_step"] == pytest.approx([2.12 / 3, 0.76, 0.1])
    assert seen["v_mean"] == pytest.approx((0.9 + 0.72 + 0.1 + 0.9 + 0.8 + 0.32) / 6)
    assert monitor([]) is None
    calm = monitor([{"values": [1.0], "breach": -1, "root": -1}])
    assert calm["breach_step"] == calm["depth"] == []
    assert calm["breach_step_mean"] is None and calm["v"][-1] == 1


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("b=3+8=1.\n\n", True),
        ("b=3+8=2.\n\n", False),
        ("+8 on 3: b=1.\n\n", True),
        ("+8 on 3: b=7.\n\n", False),
        ("b=3+8=2.\n\nc=1*4=4.\n\n", True),
        ("b=3+8=2.\n\nc=2*4=8.\n\n", False),  # consistent with an error, and wrong
        ("b=3+8=1.\n\nc=1*5=4.\n\n", False),  # another operand
        ("b=3+8=1.\n\nd=1*4=4.\n\n", False),  # a variable that is not there
        ("b=3+8=1", None),
        ("I think", None),
        ("", None),
    ],
)
def test_the_last_step_is_held_against_the_problem(text, verdict):
    assert step_is_right(PROBLEM, text) is verdict
    assert step_is_right("What is 3 + 8?", text) is None


def test_self_correction_by_hand():
    wrong, fine = "b=3+8=2.\n\n", "b=3+8=1.\n\n"
    answers = [
        (f"{wrong}However,\n\n{fine}", True),
        (f"{wrong}However,\n\n{fine}However,\n\n{fine}", True),
        (f"{wrong}However,\n\n{wrong}", False),
        (f"{fine}However,\n\n{wrong}", False),
        ("However,\n\n", True),  # nothing to judge
        (fine, True),
        (wrong, False),
        (wrong, False),
    ]
    found = self_correction([{"problem": PROBLEM, "text": t, "right": r} for t, r in answers])
    assert found == {
        "samples": 8,
        "revised": 5 / 8,
        "right_if_revised": 3 / 5,
        "right_if_not": 1 / 3,
        "judged": 4,
        "wrong_before": 3 / 4,
        "repaired": 2 / 3,
        "kept": 0.0,
    }
    elsewhere = self_correction([{"problem": "1 + 1?", "text": "However, 2", "right": True}])
    assert elsewhere["revised"] == 1 and elsewhere["judged"] == 0
    assert elsewhere["wrong_before"] is elsewhere["repaired"] is None
    assert self_correction([]) is None


def test_table_md_says_how_and_what(study):
    plan, workdir = study
    missing = {"skd-08/seed-0": "RuntimeError: two\nlines"}
    write_report(plan, workdir, missing, "python -m experiments.compare --arms opd", 61.0)
    text = (workdir / "table.md").read_text()
    for part in (
        "Command: `python -m experiments.compare --arms opd`",
        "Commit: c0ffee.",
        "python 3.11.0, jax 0.10.0",
        "1 x cpu",
        "this call took 0:01:01",
        "100 updates from the same student, of 16 trajectories",
        "of 0.0003, 0.001, 0.003",
        "seed 1000",
        "| minus OPD | minus SKD, beta .8 |",
        "- `skd-08/seed-0`: RuntimeError: two lines",
        "![accuracy](accuracy.png)",
        "![gamma](gamma.png)",
        "student 1.5k, teacher 2",
    ):
        assert part.replace(" ", "") in text.replace(" ", ""), part
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| MOTAB ")
    ]
    motab = next(row for row in rows if "87.5" in row)
    assert motab[:3] == ["MOTAB", "2", "87.5"]
    assert motab[4].startswith("+50.0 (")
    # Every table is rectangular, and lines up in a terminal.
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1
    # Strict JSON.
    json.loads((workdir / "table.json").read_text(), parse_constant=pytest.fail)


def test_a_cell_with_a_bar_stays_one_cell():
    assert aligned(["a", "b"], [["x|y", "1"]]) == "| a    | b |\n|------|--:|\n| x\\|y | 1 |"


def test_the_table_of_nothing(tmp_path):
    plan = make_plan(read_study(small_study()))
    write_report(plan, tmp_path, {"opd/seed-0": "not started"}, "", 0.0)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["arms"] == {}
    assert table["teacher"] == {"test": None, "long": None}
    assert not list(tmp_path.glob("*.png"))
    assert "- `opd/seed-0`: not started" in (tmp_path / "table.md").read_text()


def test_pictures_show_the_table(study):
    plan, workdir = study
    write_report(plan, workdir, {}, "", 0.0)
    for name in ("accuracy.png", "gamma.png", "monitor.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    table = json.loads((workdir / "table.json").read_text())

    test, longer = draw_accuracy(table).axes
    assert [bar.get_width() for bar in test.patches] == [0.5, 0.375, 0.875, 1.0]
    assert [bar.get_width() for bar in longer.patches] == [0.0, 0.25, 0.5, 0.5]
    labels = [label.get_text() for label in test.get_yticklabels()]
    assert labels == ["SKD, beta .8", "OPD", "MOTAB", "gamma_0 = 0.1"]

    share, accuracy = draw_sweep(table).axes
    np.testing.assert_allclose(share.lines[0].get_xdata(), [0.1, 0.3])
    np.testing.assert_allclose(share.lines[0].get_ydata(), [0.25, 0.25])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [1.0, 0.875])

    breach, depth, _, along = draw_monitor(table).axes
    # Two seeds, two breaches each.
    assert [bar.get_height() for bar in breach.patches] == [0, 0.5, 0, 0.5]
    assert [bar.get_height() for bar in depth.patches] == [0.5, 0.5]
    np.testing.assert_allclose(along.lines[0].get_ydata(), [2.12 / 3, 0.76, 0.1])

    for arm in table["arms"].values():
        arm["monitor"] = arm["gamma_0"] = None
        arm["accuracy"] = {"test": None, "long": None}
    assert draw_accuracy(table) is draw_sweep(table) is draw_monitor(table) is None


TALE = """Tale:
Al has 7.
It is hot.
Bo has 3 more than Al.
Bo is 2 older than Al.
Cy lacks 2 of what Bo has.
What has Cy?"""


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Al: given, Al 7.\n\nBo: Al 7 + 3, Bo 0.\n\n", True),
        ("Al: given, Al 7.\n\nBo: Al 7 + 3, Bo 1.\n\n", False),
        ("Al: given, Al 7.\n\nBo: Al 6 + 3, Bo 9.\n\n", False),
        ("Al: given, Al 7.\n\nBo: Cy 7 + 3, Bo 0.\n\n", False),
        ("Al: given, Al 7.\n\nDi: Al 7 + 3, Di 0.\n\n", False),
        ("Al: given, Al 7.\n\n", None),
        ("From 7: + 3, - 2.\n\nSo 7 + 3 is 0.\n\n", True),
        ("From 7: + 3, - 2.\n\nSo 7 + 3 is 0.\n\nSo 0 - 2 is 8.\n\n", True),
        ("From 7: + 3, - 2.\n\nSo 7 + 3 is 0.\n\nSo 0 - 2 is 7.\n\n", False),
        ("Bo: Al 7 + 3, Bo 0.\n\nSo 0 - 2 is 8.\n\nSo 8 - 2 is 6.\n\n", False),
        ("b=7+3=0.\n\n", None),
    ],
)
def test_a_tales_step_is_judged_too(text, right):
    assert step_is_right(TALE, text) is right
