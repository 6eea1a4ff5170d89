"""Scored solutions: against MOTAB's own rollout, resumed, refused; figures against plain Python."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import motab
from distill.steps.table import make_step_table
from experiments.data.batches import pad_rows
from experiments.diagnose.backtracked import __main__ as backtracked
from experiments.diagnose.backtracked.continuations import WRITERS, identity
from experiments.diagnose.backtracked.starts import STARTS, breached_solutions
from experiments.diagnose.monitored import figures, score
from experiments.diagnose.monitored.breached_list import breached_list
from experiments.diagnose.monitored.breaches import boundaries, find_breach, static_gamma
from experiments.diagnose.monitored.kept_lines import KeptLines, read_lines
from experiments.diagnose.monitored.measures import measure
from experiments.diagnose.monitored.pair_files import open_pair
from experiments.diagnose.monitored.pooled import pooled, pooled_difference, separation
from experiments.diagnose.monitored.reading import Solution, Solutions, read_solutions
from experiments.diagnose.monitored.settings import FigureSettings
from experiments.rollouts.synthesis import sealed
from models.text.tokenizer import token_bytes
from motab.credit import find_backtrack
from motab.monitor import boundary

PAIR = ["--student", "embedded:student", "--teacher", "embedded:teacher", "--data", "chain/test"]
SMALL = [*PAIR, "--size", "6", "--n", "2", "--max_new_tokens", "64", "--batch_size", "4"]


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0]), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_breach_and_root_are_those_of_the_rollout(values, gamma_0, random):
    entropies = np.array([random.choice([0.0, 0.5, 2.0]) for _ in values], np.float32)
    width = 8
    padded = np.zeros((1, width), np.float32)
    padded[0, : len(values)] = values
    rule = motab.MotabSettings(gamma_0=gamma_0, alpha=1.0)
    gammas = boundaries(entropies, gamma_0, 1.0)
    np.testing.assert_allclose(gammas, boundary(jnp.asarray(entropies), rule), rtol=1e-6)
    there = np.zeros((1, width), np.float32)
    there[0, : len(values)] = gammas
    breach, root = find_backtrack(jnp.asarray(padded), jnp.asarray(there), jnp.array([len(values)]))
    assert find_breach(padded[0, : len(values)], gammas) == (int(breach[0]), int(root[0]))


def test_a_solution_without_steps_does_not_breach():
    assert find_breach(np.zeros(0), np.zeros(0)) == (-1, -1)


@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.9, 1.0]), min_size=1, max_size=9), st.data())
@settings(max_examples=40)
def test_static_gamma_breaches_as_many_as_equal_values_allow(lowest, data):
    lowest = np.array(lowest, np.float32)
    count = data.draw(st.integers(0, len(lowest)))
    reachable = {int((lowest < g).sum()) for g in (0.0, 0.1, 0.3, 0.5, 0.95, 1.5)}
    found = int((lowest < np.float32(static_gamma(lowest, count))).sum())
    assert abs(found - count) == min(abs(x - count) for x in reachable)


def test_pooled_means_are_over_rows_and_their_intervals_over_problems():
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    counts = np.array([1, 1, 1, 0, 1], bool)
    problem = np.array([0, 0, 0, 1, 7])
    point = pooled(values, counts, problem)
    assert point is not None
    assert (point["mean"], point["rollouts"], point["problems"]) == (0.5, 4, 2)
    # Two problems, of 2 right in 3 and 0 in 1: a resample gives 2/3, 1/2 or 0.
    assert (point["low"], point["high"]) == (0.0, pytest.approx(2 / 3))
    assert pooled(values, counts & False, problem) is None
    alone = pooled(values, problem == 0, problem)
    assert alone is not None and alone["low"] is None
    difference = pooled_difference(values, problem == 0, problem == 7, problem)
    assert difference is not None
    assert difference["mean"] == pytest.approx(2 / 3)
    assert difference["low"] is None  # some resamples hold none of one kind
    assert pooled_difference(values, problem == 0, problem == 5, problem) is None


def test_separation_counts_pairs():
    scores, wrong = np.array([0.1, 0.5, 0.5, 0.9]), np.array([True, True, False, False])
    found = separation(scores, wrong, np.array([0, 1, 2, 3]))
    assert found is not None and found["mean"] == (1 + 1 + 0.5 + 1) / 4
    assert separation(scores, wrong & False, np.arange(4)) is None


def solutions(seed=0, problems=5, n=3) -> Solutions:
    """Made-up solutions, one of them empty."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(problems * n):
        steps = 0 if i == 4 else int(rng.integers(1, 7))
        line = {
            "sample_id": i,
            "example": {"id": f"p|{i // n}", "problem": "1 < 2?", "answer": "3"},
            "right": bool(rng.integers(2)),
            "final": None,
            "truncated": i == 4,
            "token_ids": list(range(3 * steps)),
            "step_ends": [3 * (k + 1) for k in range(steps)],
            "steps": [f"step {k}.\n" for k in range(steps)],
        }
        values, entropies = (rng.uniform(0, 1, steps).astype(np.float32) for _ in range(2))
        found.append(Solution(i // n, values, entropies, line))
    return Solutions({}, tuple(found), 2)


def test_figures_are_those_of_plain_python(tmp_path):
    made = solutions()
    results = measure(made, FigureSettings(rollouts=tmp_path, grid=(0.2, 0.6), gamma_0=0.6, bins=4))
    assert (results["problems"], results["rollouts"], results["left_out"]) == (5, 15, 2)
    for row in results["breaches"]:
        hits = []
        for x in made.all:
            v, h = x.values_L.tolist(), x.entropies_L.tolist()
            unsafe = [k for k in range(len(v)) if v[k] < row["gamma_0"] * math.exp(-h[k])]
            if unsafe:
                falls = [(v[k] - v[k - 1], k) for k in range(1, unsafe[0] + 1)]
                hits.append((unsafe[0], min(falls)[1] if falls else 0, x))
        a = row["adaptive"]
        assert a["breached"] == len(hits) == row["static"]["breached"]
        assert a["share"]["mean"] == pytest.approx(len(hits) / 15)
        assert a["step"]["mean"] == pytest.approx(np.mean([b for b, _, _ in hits]))
        assert a["depth"]["mean"] == pytest.approx(np.mean([b - r for b, r, _ in hits]))
        assert sum(a["steps"]) == sum(a["depths"]) == len(hits)
        wrong = [not x.line["right"] for _, _, x in hits]
        assert a["wrong_breached"]["mean"] == pytest.approx(np.mean(wrong))
        names = {x.line["sample_id"] for _, _, x in hits}
        others = [not x.line["right"] for x in made.all if x.line["sample_id"] not in names]
        assert a["wrong_others"]["mean"] == pytest.approx(np.mean(others))
        lowest = [min(x.values_L.tolist(), default=9.0) for x in made.all]
        assert sum(v < row["static"]["gamma"] for v in lowest) == len(hits)
    assert results["shown"] == results["breaches"][1]["adaptive"]
    values = [v for x in made.all for v in x.values_L.tolist()]
    assert sum(results["values"]["histogram"]) == results["values"]["steps"] == len(values)
    for place in results["values"]["positions"]:
        by_problem: dict[int, list[float]] = {}
        for x in made.all:
            for k, v in enumerate(x.values_L.tolist()):
                if place["start"] <= (k + 0.5) / len(x.values_L) < place["end"]:
                    by_problem.setdefault(x.problem, []).append(v)
        expected = np.mean([np.mean(v) for v in by_problem.values()])
        assert place["mean"] == pytest.approx(expected)
        assert place["steps"] == sum(map(len, by_problem.values()))
    json.dumps(results, allow_nan=False)


def test_the_list_marks_breach_and_root_and_leaves_verdicts_empty(tmp_path):
    made = solutions()
    text = breached_list(made, FigureSettings(rollouts=tmp_path, gamma_0=0.6, show=2))
    assert text.count("\n## ") == 2
    assert text.count("**breach**") == 2
    assert text.count("root |") + text.count("root and") == 3  # one in the heading
    table = [x for x in text.splitlines() if x.endswith("| |") and x.startswith("| ")]
    assert len(table) == 2
    assert "p\\|" in text and "1 \\< 2?" in text and "step 0.↵" in text


def test_torn_lines_do_not_count_and_headers_are_compared(tmp_path, caplog):
    path = tmp_path / "lines.jsonl"
    header = {"kind": "header", "seed": 1, "paths": {"a": "x"}}
    with KeptLines(path, header) as lines:
        assert not path.exists()
        lines.add([{"sample_id": 3, "x": 0.5}, {"sample_id": 1, "x": 1}])
    path.write_bytes(path.read_bytes() + sealed({"sample_id": 2, "x": 2})[:-4])
    assert list(read_lines(path)[1]) == [1, 3]
    assert "line 4" in caplog.text
    with KeptLines(path, {**header, "paths": {"a": "y"}}, free=("paths",)) as lines:
        assert lines.known == {1: {"sample_id": 1, "x": 1}, 3: {"sample_id": 3, "x": 0.5}}
        lines.add([{"sample_id": 2, "x": 2}])
    assert sorted(read_lines(path)[1]) == [1, 2, 3]
    with pytest.raises(ValueError, match="another seed: 1, now 2"):
        KeptLines(path, {**header, "seed": 2})
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match="line 1: no header"):
        read_lines(path)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """What the embedded pair gives, in one go."""
    out = tmp_path_factory.mktemp("scored")
    with jax.default_matmul_precision("highest"):
        assert score.main([*SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def continued(scored):
    """The same, with texts from several starts."""
    with jax.default_matmul_precision("highest"):
        assert backtracked.main(["--rollouts", str(scored), "--gamma_0", "0.3"]) == 0
    return scored


def cut(path, keep):
    """The file as an interruption after `keep` lines leaves it, the next one torn."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: keep + 1]) + lines[keep + 1][:40])


def assert_same_lines(one, other):
    (first, a), (second, b) = read_lines(one), read_lines(other)
    assert first == second and list(a) == list(b)
    for name, line in a.items():
        for field, value in line.items():
            if field in ("values", "entropies"):
                np.testing.assert_allclose(value, b[name][field], atol=1e-5)
            else:
                assert value == b[name][field], (name, field)


def test_resumed_is_uninterrupted_and_other_settings_are_refused(scored, tmp_path, capsys):
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes((scored / "rollouts.jsonl").read_bytes())
    cut(file, 5)
    before = file.read_bytes()
    for other, named in (
        (["--temperature", "0.7"], "another temperature: 0.6, now 0.7"),
        (["--delimiter", "."], "another delimiter"),
        (["--teacher", "embedded:student"], "another teacher"),
        (["--prompt_format", "{problem} "], "another prompt"),
    ):
        assert score.main([*SMALL, *other, "--out", str(tmp_path)]) == 1
        assert named in capsys.readouterr().err
        assert file.read_bytes() == before
    with jax.default_matmul_precision("highest"):
        assert score.main([*SMALL, "--out", str(tmp_path)]) == 0
    assert_same_lines(scored / "rollouts.jsonl", file)
    assert score.main([*SMALL, "--out", str(tmp_path)]) == 0
    assert "All 12 solutions are in" in capsys.readouterr().out


def test_what_is_scored_is_in_its_place(scored):
    made = read_solutions(scored)
    assert len(made.all) == 12 and not made.left_out
    for x in made.all:
        line = x.line
        assert len(x.values_L) == len(x.entropies_L) == len(line["steps"])
        assert "".join(line["steps"]) == line["text"]
        assert ((x.values_L >= 0) & (x.values_L <= 1)).all() and (x.entropies_L >= 0).all()
        assert line["truncated"] == (line["token_ids"][-1] != made.all[0].line["token_ids"][-1])


def test_motab_breaches_where_the_figures_say(scored):
    """The same noise with a boundary: the rollout is stopped at the same step, and goes back."""
    made = read_solutions(scored)
    pair = open_pair(
        {"student": "embedded:student", "teacher": "embedded:teacher"},
        {"student": None, "teacher": None},
    )
    student, teacher = pair.load("student"), pair.load("teacher")
    rule = motab.MotabSettings(
        gamma_0=0.3, max_total=64, max_step_tokens=64, min_correction=1, stitch=False, chunk=32
    )
    table = make_step_table(token_bytes(pair.tokenizer, student.config.vocab_size), ".\n\n")
    rollout = motab.make_rollout(
        student.config, teacher.config, rule, table, (), (), pair.eos, pair.vocab_size
    )
    prompts = [x.line["prompt_ids"] for x in made.all]
    inputs = *pad_rows(prompts, max(map(len, prompts))), np.arange(len(prompts), dtype=np.int32)
    with jax.default_matmul_precision("highest"):
        record = jax.jit(rollout)(student.params, teacher.params, *inputs, jax.random.key(0))[1]
    breach, root = made.breaches(0.3, 1.0)
    assert (breach > 0).any() and (breach < 0).any()
    assert record.breach_B.tolist() == breach.tolist()
    assert record.root_B.tolist() == root.tolist()


def test_starts_that_coincide_have_the_same_texts(continued):
    made = read_solutions(continued)
    _header, lines = read_lines(continued / "corrections.jsonl")
    breached = breached_solutions(made, 0.3, 1.0, 0)
    results = json.loads((continued / "corrections.json").read_text())
    assert results["breached"] == len(breached) > 0
    texts = {(x["rollout"], x["writer"], x["step"], x["copy"]) for x in lines.values()}
    assert len(texts) == len(lines)
    by_step = {(x.sample_id, step) for x in breached for step in x.starts.values()}
    assert len(lines) == len(by_step) * 2 * len(WRITERS)
    for x in breached:
        breach, root = x.solution.breach(0.3, 1.0)
        assert x.starts["root"] == root and x.starts["breach"] == breach
        assert x.starts["before"] == max(breach - 1, 0) and x.starts["start"] == 0
        assert 0 <= x.starts["random"] <= max(breach - 1, 0)
        for step in x.starts.values():
            line = lines[identity(x.sample_id, "teacher", step, 1, 2, 64)]
            assert line["kept"] == ([0, *x.solution.line["step_ends"]])[step]
            assert line["kept"] + len(line["token_ids"]) <= 64
    # Against plain Python: accuracy by start, and the paired difference.
    for writer in WRITERS:
        right = {
            start: [
                np.mean(
                    [
                        lines[identity(x.sample_id, writer, x.starts[start], c, 2, 64)]["right"]
                        for c in range(2)
                    ]
                )
                for x in breached
            ]
            for start in STARTS
        }
        found = results["writers"][writer]
        for start in STARTS:
            accuracy = found["starts"][start]["accuracy"]["mean"]
            assert accuracy == pytest.approx(np.mean(right[start]))
        for other in STARTS[1:]:
            differ = [x.starts["root"] != x.starts[other] for x in breached]
            gap = np.array(right["root"]) - np.array(right[other])
            there = found["differences"][other]
            assert there["differ"] == sum(differ)
            assert there["accuracy"]["all"]["mean"] == pytest.approx(gap.mean())
            assert (gap[~np.array(differ)] == 0).all()
            if any(differ):
                mean = there["accuracy"]["differing"]["mean"]
                assert mean == pytest.approx(gap[np.array(differ)].mean())


def test_texts_resumed_are_uninterrupted_and_others_are_refused(continued, tmp_path, capsys):
    for name in ("rollouts.jsonl", "corrections.jsonl"):
        (tmp_path / name).write_bytes((continued / name).read_bytes())
    cut(tmp_path / "corrections.jsonl", 3)
    where = ["--rollouts", str(tmp_path), "--gamma_0", "0.3"]
    assert backtracked.main([*where, "--corrections", "1"]) == 1
    assert "another corrections: 2, now 1" in capsys.readouterr().err
    assert backtracked.main([*where, "--teacher", "embedded:student"]) == 1
    assert "another model" in capsys.readouterr().err
    with jax.default_matmul_precision("highest"):
        assert backtracked.main(where) == 0
    assert_same_lines(continued / "corrections.jsonl", tmp_path / "corrections.jsonl")


def test_figures_are_written(scored, capsys):
    assert figures.main(["--rollouts", str(scored), "--gamma_0", "0.8", "--show", "3"]) == 0
    assert "12 solutions" in capsys.readouterr().out
    results = json.loads((scored / "monitor.json").read_text())
    assert results["rollouts"] == 12 and results["scored"]["n"] == 2
    assert (scored / "monitor.png").stat().st_size > 10_000
    assert (scored / "breached.md").read_text().startswith("# Breached solutions")


def test_nothing_scored_is_said(tmp_path, capsys):
    assert figures.main(["--rollouts", str(tmp_path)]) == 1
    assert "experiments.diagnose.monitored.score" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
