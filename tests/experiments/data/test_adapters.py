"""Known data sets, the hub's layout, Parquet, maps of fields, multiple choice."""

from __future__ import annotations

import json
import shutil

import pytest

from experiments.data import records as records_module
from experiments.data.catalogue import CATALOGUE
from experiments.data.fields import FieldMap
from experiments.data.sources import SAMPLES, load_source
from experiments.grading import last_boxed

from ...real_files import DATA

# A record of each known data set, as the hub's viewer shows them.
RECORDS = {
    "limo_v2": {"question": "p", "solution": "so \\boxed{7}", "answer": "7"},
    "acereason": {"category": "math", "source": "aops", "input": "p", "output": "<think>t</think> so \\boxed{7}"},
    "openthoughts": {
        "problem": "p", "domain": "math", "source": "olympiads", "deepseek_reasoning": "t",
        "deepseek_solution": "so \\boxed{7.0}", "ground_truth_solution": "thus \\boxed{7}",
    },
    "openthoughts3": {
        "difficulty": 8, "source": "ai2", "domain": "math",
        "conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "so \\boxed{7}"}],
    },
    "gsm8k/train": {"question": "p", "answer": "so\n#### 7"},
    "gsm8k/test": {"question": "p", "answer": "so\n#### 7"},
    "math/train": {"problem": "p", "level": "Level 2", "type": "Algebra", "solution": "so \\boxed{7}"},
    "math500": {"problem": "p", "solution": "so", "answer": "7", "level": 2, "unique_id": "test/7.json"},
    "aime24": {"id": 60, "problem": "p", "solution": "so", "answer": "7", "year": "2024"},
    "aime25": {"problem_idx": 1, "answer": 7, "problem": "p", "problem_type": ["Algebra"]},
    "hmmt25": {"problem_idx": 1, "answer": "7", "problem": "p", "problem_type": ["Algebra"]},
    "gpqa": {
        "Question": "p", "Correct Answer": "7", "Incorrect Answer 1": "5", "Incorrect Answer 2": "6",
        "Incorrect Answer 3": "8", "Explanation": "so",
    },
}  # fmt: skip
THOUGHT = "<think>\nt\n</think>\n\nso \\boxed{7.0}"


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_known_sets_have_one_schema(name, tmp_path):
    path = write(tmp_path / "copy.jsonl", RECORDS[name])
    [example] = load_source({"name": name, "path": path})
    assert example.problem.startswith("p")
    assert example.source in (name, RECORDS[name].get("source"))
    if name == "gpqa":
        assert example.choices[ord(example.answer) - ord("A")] == "7"
    else:
        assert example.answer == "7"
    expected = {"openthoughts": THOUGHT, "acereason": "<think>t</think> so \\boxed{7}"}
    if name in expected:
        assert example.reference == expected[name]
    assert (example.group != "") == (name.startswith("math"))
    assert set(RECORDS) == set(CATALOGUE)


def test_a_known_set_is_asked_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def load(where, subset, split):
        asked.append((where, subset, split))
        return [RECORDS["gsm8k/test"]]

    monkeypatch.setattr(datasets, "load_dataset", load)
    [example] = load_source({"name": "gsm8k/test"})
    assert (example.id, example.answer) == ("gsm8k/test:1", "7")
    [example] = load_source({"name": "hub:me/mine", "subset": "s", "split": "dev"})
    assert (example.id, example.source) == ("me/mine:1", "me/mine")
    load_source({"name": "hub:me/mine"})
    assert asked == [
        ("openai/gsm8k", "main", "test"),
        ("me/mine", "s", "dev"),
        ("me/mine", None, "train"),
    ]


def test_folders_and_parquet(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"p{i}", "answer": f"so\n#### {i}", "n": i} for i in range(5)]
    folder = tmp_path / "mine"
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:3]), folder / "train.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[3:]), folder / "test.parquet")
    monkeypatch.setattr(records_module, "_ROWS", 2)
    file = load_source({"name": str(folder / "train.parquet")})
    assert [(e.id, e.problem, e.answer) for e in file] == [
        (f"train.parquet:{i + 1}", f"p{i}", str(i)) for i in range(3)
    ]
    train, test = (load_source({"name": str(folder), "split": s}) for s in ("", "test"))
    assert [e.problem for e in train] == ["p0", "p1", "p2"]
    assert [(e.id, e.problem) for e in test] == [("mine:1", "p3"), ("mine:2", "p4")]
    known = load_source({"name": "gsm8k/test", "path": str(folder), "split": "test"})
    assert (known[0].id, known[0].source) == ("gsm8k/test:1", "gsm8k/test")
    with pytest.raises(ValueError, match="split='dev'"):
        load_source({"name": str(folder), "split": "dev"})
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="not valid Parquet"):
        load_source({"name": str(broken)})
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match="empty"):
        load_source({"name": str(tmp_path / "empty")})


def test_maps_go_into_lists_and_write_several_fields():
    record = {"a.b": "flat", "c": [{"v": "one"}, {"v": "two"}], "t": "think", "s": "say", "n": None}
    record |= {"answer": "1", "key": "k7", "level": 3, "from": "here"}
    names = {"problem": "c.1.v", "reference": "<think>{t}</think>{s}", "id": "key"}
    map_ = FieldMap(names | {"group": "level", "source": "from"}, "f", "s")
    example = map_(record, "line 1", "f, line 1")
    assert (example.problem, example.reference) == ("two", "<think>think</think>say")
    assert (example.id, example.group, example.source) == ("k7", "3", "here")
    assert FieldMap({"problem": "a.b"}, "f", "s")(record, "line 1", "").problem == "flat"
    empty = FieldMap({"problem": "a.b", "reference": "{n}{s}"}, "f", "s")
    assert empty(record, "line 1", "").reference == ""
    for bad in ("c.2.v", "c.x.v", "c.1.w", "x.y"):
        with pytest.raises(ValueError, match=f"no field '{bad}'"):
            FieldMap({"problem": bad}, "f", "s")(record, "line 1", "f, line 1")


def test_multiple_choice_from_fields_or_lists():
    listed = FieldMap({"choices": "options"}, "f", "s")
    record = {"question": "Which?", "options": ["red", "blue"], "answer": "blue"}
    example = listed(record, "line 1", "")
    assert (example.answer, example.choices) == ("B", ("red", "blue"))
    assert example.problem == "Which?\n\nA) red\nB) blue"
    assert listed(record | {"answer": "a"}, "line 1", "").answer == "A"
    for answer in ("C", "green", "AB"):
        with pytest.raises(ValueError, match="neither a letter nor one of the choices"):
            listed(record | {"answer": answer}, "line 1", "f")
    with pytest.raises(ValueError, match="must be a list of choices"):
        listed(record | {"options": "red"}, "line 1", "f")
    known = CATALOGUE["gpqa"]
    shuffled = FieldMap(known.fields, "f", "s")
    letters = set()
    for i in range(40):
        example = shuffled(RECORDS["gpqa"] | {"Question": f"q{i}"}, "line 1", "")
        assert sorted(example.choices) == ["5", "6", "7", "8"]
        assert example.choices["ABCD".index(example.answer)] == "7"
        letters.add(example.answer)
        assert example == shuffled(RECORDS["gpqa"] | {"Question": f"q{i}"}, "line 1", "")
    assert letters == set("ABCD")


def test_what_has_no_effect_or_no_sense_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", {"problem": "p", "answer": 1, "k": 1})
    twice = write(tmp_path / "b.jsonl", *[{"problem": "p", "answer": 1, "k": 1}] * 2)
    cases = [
        ({"name": path, "path": path}, "local copy of one of limo_v2"),
        ({"name": path, "split": "test"}, "no subset and no split"),
        ({"name": "aime24", "split": "test"}, "has its split in its name"),
        ({"name": "chain/test", "path": path}, "remove `path`"),
        ({"name": "chain/test", "filter": {"where": "a=b"}}, "remove `filter.where`"),
        ({"name": twice, "fields": {"id": "k"}}, "id '1' is there twice"),
        ({"name": path, "filter": {"max": 3}}, "filter.max: there is no such field"),
        ({"name": path, "filter": {"where": "k"}}, "form field=value"),
        ({"name": path, "filter": {"where": "k=2"}}, "no usable records"),
    ]
    for spec, message in cases:
        with pytest.raises(ValueError, match=message):
            load_source(spec)


def test_without_the_library_the_message_says_how(monkeypatch, tmp_path):
    import builtins

    plain = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] in ("datasets", "pyarrow"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.parquet").touch()
    for name in ("hub:me/mine", str(tmp_path / "a.parquet")):
        with pytest.raises(ImportError, match=r"motab\[data\]"):
            load_source({"name": name})


def test_samples_that_come_along():
    gsm8k, math = (load_source({"name": f"sample/{name}"}) for name in ("gsm8k", "math"))
    assert (len(gsm8k), len(math)) == (32, 40)
    assert all(last_boxed(e.reference) == e.answer for e in [*gsm8k, *math])
    assert "MIT" in (SAMPLES / "LICENSE").read_text()
    levels = load_source({"name": "sample/math", "fields": {"group": "level"}})
    assert {e.group for e in levels} == set("12345")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets: see tests/real_files.py")
@pytest.mark.parametrize(
    ("name", "file", "count", "groups"),
    [
        ("gsm8k/train", "gsm8k/train.jsonl", 7473, 1),
        ("gsm8k/test", "gsm8k/test.jsonl", 1319, 1),
        ("math500", "math500/test.jsonl", 500, 5),
        ("aime24", "aime24/test.jsonl", 30, 1),
        ("aime25", "aime25/test.jsonl", 30, 1),
        ("hmmt25", "hmmt_feb_2025/hmmt_feb_2025.jsonl", 30, 1),
    ],
)
def test_real_copies_of_known_sets(name, file, count, groups, tmp_path):
    shutil.copy(DATA / file, tmp_path)
    source = load_source({"name": name, "path": str(tmp_path / (DATA / file).name)})
    assert len(source) == count
    assert len({e.group for e in source}) == groups
    assert {e.source for e in source} == {name}
