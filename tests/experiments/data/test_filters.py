"""Filters, duplicates and contamination: what is left out, and that it is reported."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.__main__ import main
from experiments.data.contamination import Contamination, words
from experiments.data.sources import load_source
from experiments.tasks.example import Example

from ...real_files import DATA

BOILERPLATE = "where m and n are relatively prime positive integers. Find m + n."
LONG = "A robot starts at the origin and each minute walks north by one metre or east by two metres"


def example(problem, id_="1", reference="", source="exam"):
    return Example(id_, problem, reference, "1", source)


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def kept(path, **rules):
    source = load_source({"name": path, "filter": rules})
    return [e.problem for e in source], source.report


def test_lengths_and_references(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"problem": "p" * 5, "answer": 1, "solution": "s" * 9, "kind": "x"},
        {"problem": "p" * 6, "answer": 1, "solution": "s" * 10, "kind": "y"},
        {"problem": "p" * 7, "answer": 1, "kind": "x"},
    )
    all_of_them = ["p" * 5, "p" * 6, "p" * 7]
    assert kept(path)[0] == all_of_them
    for rules, problems, reason in (
        ({"min_problem": 6}, all_of_them[1:], "with too short a problem"),
        ({"max_problem": 6}, all_of_them[:2], "with too long a problem"),
        ({"max_reference": 9}, [all_of_them[0], all_of_them[2]], "with too long a reference"),
        ({"needs_reference": True}, all_of_them[:2], "without a reference"),
    ):
        found, report = kept(path, **rules)
        assert found == problems
        assert (report.read, report.kept, list(report.dropped)) == (3, 2, [reason])
    found, report = kept(path, where="kind=x")
    assert found == all_of_them[::2] and report.read == 2 and not report.dropped
    assert len(load_source({"name": path, "size": 1, "filter": {"min_problem": 6}})) == 1


def test_the_first_of_equal_problems_stays(tmp_path):
    texts = ["What is $1{,}000 + 1$?", "what is 1,000+1 ", "What is 1,000 - 1?", "What is 1000+1"]
    texts[0] = "What is $1,000 + 1$?"
    path = write(tmp_path / "a.jsonl", *[{"problem": t, "answer": 1} for t in texts])
    found, report = kept(path, unique=True)
    assert found == [texts[0], texts[2]]
    assert report.dropped == {"duplicate": [("a.jsonl:2", "a.jsonl:1"), ("a.jsonl:4", "a.jsonl:1")]}
    assert "2 duplicate" in report.summary


@given(st.text(max_size=60))
def test_case_spaces_and_dollars_do_not_matter(text):
    plain = "".join(c for c in text if c not in "$\\{}")
    assert words(f"  {plain}  ") == words(plain) == words(f"${plain}$")
    assert words("x+1") != words("x-1") and words("1.5") != words("15")
    assert words("n!") != words("n") and words("Ten!") == words("ten.")


def test_copies_are_found_and_boilerplate_is_not():
    problem = f"{LONG}. The probability that it meets the wall is m/n, {BOILERPLATE}"
    out = Contamination([example(problem), example("Compute 1+2.", "2")], 13, 0.5)
    assert out.find(problem.upper()) == "exam 1"
    assert out.find(f"Solve this. {problem} Show your work in full.") == "exam 1"
    assert out.find(f"{LONG}. The probability that it meets the wall is sought") == "exam 1"
    assert out.find(f"A fair coin is thrown, and the odds are m/n, {BOILERPLATE}") is None
    assert out.find("compute  $1+2$") == "exam 2"
    assert out.find("Compute 1+3.") is None
    strict = Contamination([example(problem)], 13, 1.0)
    assert strict.find(problem) == "exam 1"
    assert strict.find(f"{LONG}. The probability that it meets the wall is small") is None
    for bad in ({"ngram": 0, "overlap": 0.5}, {"ngram": 3, "overlap": 0.0}):
        with pytest.raises(ValueError, match=r"filter\.(ngram|overlap)"):
            Contamination([], **bad)


def test_evaluation_sets_are_kept_out_and_named(tmp_path, caplog):
    exam = write(tmp_path / "exam.jsonl", {"problem": f"{LONG}. Where is it?", "answer": 1})
    path = write(
        tmp_path / "train.jsonl",
        {"problem": f"{LONG}. Where is she?", "answer": 1},
        {"problem": "Something else.", "answer": 1},
    )
    found, report = kept(path, against=(exam,))
    assert found == ["Something else."]
    assert report.dropped == {"in the evaluation sets": [("train.jsonl:1", f"{exam} exam.jsonl:1")]}
    assert "1 in the evaluation sets" in caplog.text
    # Fewer words in a row, and the share, decide.
    assert len(kept(path, against=(exam,), overlap=1.0)[0]) == 2
    assert len(kept(path, against=(exam,), ngram=50)[0]) == 2


def test_the_embedded_task_can_be_filtered():
    spec = {"name": "chain/train", "size": 40, "max_steps": 2}
    plain = load_source(spec)
    unique = load_source({**spec, "filter": {"unique": True}})
    assert [e.problem for e in unique] == list(dict.fromkeys(e.problem for e in plain))


def test_the_command_shows_and_writes(tmp_path, capsys):
    exam = write(tmp_path / "exam.jsonl", {"question": f"{LONG}. Where is it?", "answer": 1})
    path = write(
        tmp_path / "train.jsonl",
        {"q": f"{LONG}. Where is it?", "answer": 1},
        {"q": "Something else.", "answer": 2},
        {"q": "Something else!", "answer": 2},
    )
    out = tmp_path / "clean.jsonl"
    command = ["--name", path, "--fields", "problem=q", "--unique", "--against", exam]
    assert main([*command, "--out", str(out), "--tokenizer", "embedded:tokenizer"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 read, 1 kept; left out: 1 in the evaluation sets, 1 duplicate" in printed
    assert "median tokens" in printed
    [record] = map(json.loads, out.read_text().splitlines())
    assert (record["problem"], record["answer"]) == ("Something else.", "2")
    assert record["source"] == "train"
    dropped = [json.loads(r) for r in out.with_suffix(".dropped.jsonl").read_text().splitlines()]
    assert [(r["id"], r["detail"]) for r in dropped] == [
        ("train.jsonl:1", f"{exam} exam.jsonl:1"),
        ("train.jsonl:3", "train.jsonl:2"),
    ]
    # What was written is a data set.
    [again] = load_source({"name": str(out), "fields": {"id": "id", "source": "source"}})
    assert (again.id, again.problem) == ("train.jsonl:2", "Something else.")
    assert main(["--name", "absent.jsonl"]) == 1
    assert "absent.jsonl" in capsys.readouterr().err
    assert main(["--name", path, "--min_problem", "-1"]) == 2
    assert "--min_problem=-1 must be 0 (off) or more" in capsys.readouterr().err
    assert main(["--name", path, "--fields", "problem"]) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets: see tests/real_files.py")
def test_real_training_sets_against_real_evaluation_sets(tmp_path):
    exams = tuple(str(DATA / f"{n}/test.jsonl") for n in ("math500", "aime24", "aime25"))
    rules = {"against": exams, "unique": True}
    counts = {}
    for name in ("math_train_prompts/math.json", "deepscaler_aime_train/aime.json"):
        spec = {"name": str(DATA / name), "on_error": "skip", "filter": rules}
        dropped = load_source(spec).report.dropped
        counts[name] = {reason: len(found) for reason, found in dropped.items()}
    # MATH's problems come in families, and six of AIME's earlier years are in MATH-500.
    assert counts == {
        "math_train_prompts/math.json": {"duplicate": 3, "in the evaluation sets": 39},
        "deepscaler_aime_train/aime.json": {"in the evaluation sets": 6},
    }
    # An evaluation set that is hidden in a training set is found whole.
    hidden = write(
        tmp_path / "hidden.jsonl",
        *({"problem": f"Solve: {e.problem}", "answer": 1} for e in load_source({"name": exams[1]})),
        {"problem": "Another.", "answer": 1},
    )
    assert len(load_source({"name": hidden, "filter": {"against": exams[1:2]}})) == 1
