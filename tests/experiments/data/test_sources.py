"""Data sets by name: real schemas, and errors that name file, line and field."""

import json

import ml_collections
import pytest

from experiments.data.batches import fitting_prompts, prompt_batches
from experiments.data.sources import load_source
from experiments.grading import last_boxed
from experiments.tasks.chain import ChainSource

from ...real_files import DATA


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def test_chain_by_name():
    spec = ml_collections.ConfigDict({"name": "chain/test", "size": 7, "style": "teacher"})
    assert load_source(spec) == ChainSource("test", size=7, style="teacher")
    assert load_source({"name": "chain/train", "size": 0, "seed": 3}) == ChainSource(
        "train", seed=3
    )


def test_gsm8k_answers_are_split(tmp_path):
    worked = "Bo sold 48/2 = <<48/2=24>>24.\nHe took 48*24 = $<<48*24=1152>>1152.\n#### 1,152"
    path = write(tmp_path / "train.jsonl", {"question": "How much?", "answer": worked})
    [example] = load_source({"name": path})
    assert example.answer == "1152"
    assert example.reference == "Bo sold 48/2 = 24.\nHe took 48*24 = $1152.\n\\boxed{1152}"
    assert (example.id, example.problem, example.source) == ("train.jsonl:1", "How much?", "train")


def test_fields_are_detected_or_mapped(tmp_path):
    record = {"problem": "p", "question": "q", "solution": "so \\boxed{\\frac{1}{2}}.", "level": 3}
    path = write(tmp_path / "a.jsonl", record, record | {"answer": 5})
    first, second = load_source({"name": path})
    assert (first.problem, first.answer) == ("p", "\\frac{1}{2}")
    assert second.answer == "5"
    [mapped, _] = load_source({"name": path, "fields": {"problem": "question", "answer": "level"}})
    assert (mapped.problem, mapped.answer, mapped.reference) == ("q", "3", record["solution"])


def test_json_lists_and_size(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"problem": f"p{i}", "answer": i} for i in range(5)]))
    source = load_source({"name": str(path), "size": 3})
    assert [(e.id, e.problem, e.answer) for e in source] == [
        (f"a.json:{i + 1}", f"p{i}", str(i)) for i in range(3)
    ]
    assert len(load_source({"name": str(path), "size": 0})) == 5


def test_bad_records_are_skipped_on_request_and_counted(tmp_path, caplog):
    good = {"problem": "p", "answer": 1}
    path = write(tmp_path / "a.jsonl", {"problem": "p", "answer": None}, good)
    with open(path, "ab") as file:
        file.write(b'{"problem": "p", "ans\n\xff\xfe\n[]\n' + json.dumps(good).encode())
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: field 'answer' is empty.*'skip'"):
        load_source({"name": path}, needs_answer=True)
    source = load_source({"name": path, "on_error": "skip"}, needs_answer=True)
    assert (len(source), source.dropped) == (2, 4)
    assert [e.id for e in source] == ["a.jsonl:2", "a.jsonl:6"]
    assert "skipped 4 records, of which the first: " in caplog.text
    assert len(load_source({"name": path, "on_error": "skip", "size": 1}, needs_answer=True)) == 1
    write(tmp_path / "b.jsonl", {"problem": "p"})
    with pytest.raises(ValueError, match=r"b\.jsonl holds no usable records \(1 were skipped\)"):
        load_source({"name": str(tmp_path / "b.jsonl"), "on_error": "skip"}, needs_answer=True)


def test_prompts_that_do_not_fit_are_found_before_any_work(tmp_path):
    records = [{"problem": "p" * n, "answer": 1} for n in (3, 9, 4, 9)]
    path = write(tmp_path / "a.jsonl", *records)

    def render(problem):
        return [1] * len(problem)

    with pytest.raises(ValueError, match=r"example a\.jsonl:2 has 9 tokens, more than"):
        prompt_batches(load_source({"name": path}), render, batch_size=1, max_prompt_tokens=8)
    source = load_source({"name": path, "on_error": "skip"})
    kept = fitting_prompts(source, render, 8)
    assert ([e.id for e in kept], kept.dropped) == (["a.jsonl:1", "a.jsonl:3"], 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"problem": "p", "answer": 1}', "", "{oops"], r"line 3: not valid JSON"),
        (['{"text": "p", "answer": 1}'], r"line 1: no field 'problem', 'question'.*has 'text'.*fields\.problem"),
        (['{"problem": "p"}'], r"line 1: no field 'answer'"),
        (['{"problem": " ", "answer": 1}'], r"line 1: field 'problem' is empty"),
        (['{"problem": ["p"], "answer": 1}'], r"line 1: field 'problem' must be text"),
        (['{"problem": "p", "answer": true}'], r"line 1: field 'answer' must be text or a number"),
        (['{"problem": "p", "answer": NaN}'], r"line 1: field 'answer' must be text or a number"),
        (['{"problem": "\\ud800", "answer": 1}'], r"line 1: field 'problem' holds half a surrogate"),
        (["[" * 100_000], r"line 1: not valid JSON"),
        (["5"], r"line 1: a record must be an object"),
        ([""], r"no usable records"),
    ],
)  # fmt: skip
def test_bad_records_are_located(tmp_path, lines, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bad\.jsonl.*" + message):
        load_source({"name": str(path)}, needs_answer=True)


def test_bad_specs_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"problem": "p", "answer": 1})
    cases = [
        ({"name": "chain/dev"}, "chain/dev.*chain/train"),
        ({"name": "gsm8k"}, r"'gsm8k' is neither"),
        ({"name": "chain/test", "sise": 3}, "unknown option 'sise'"),
        ({"name": path, "style": "teacher"}, "style='teacher' is an option of other tasks"),
        ({"name": path, "fields": {"text": "p"}}, r"fields\.text"),
        ({"name": path, "fields": {"reference": "solution"}}, "no field 'solution'"),
        ({"name": path, "on_error": "drop"}, "on_error='drop' is neither"),
        ({"name": path, "answer": "last"}, "answer='last' is none of boxed, flexible"),
        ({"name": "chain/test", "answer": "flexible"}, "boxes its answers; remove `answer`"),
        (
            {"name": "chain/test", "fields": {"problem": "p"}},
            "no fields to map and nothing to fetch; remove `fields`",
        ),
    ]
    for spec, message in cases:
        with pytest.raises(ValueError, match=message):
            load_source(spec)
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        load_source({"name": str(tmp_path / "absent.jsonl")})
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ValueError, match="list of records"):
        load_source({"name": str(tmp_path / "b.json")})
    # A chain option left at its default does no harm: only the name of the data set changed.
    assert len(load_source({"name": path, "style": "student", "seed": 4})) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets beside the repository")
@pytest.mark.parametrize(
    ("name", "count", "answer", "with_reference"),
    [
        ("gsm8k/train.jsonl", 7473, "72", True),
        ("gsm8k/test.jsonl", 1319, "18", True),
        ("math500/test.jsonl", 500, "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("aime24/test.jsonl", 30, "204", True),
        ("aime25/test.jsonl", 30, "70", False),
        ("hmmt_feb_2025/hmmt_feb_2025.jsonl", 30, "103", False),
        ("deepscaler_aime_train/aime.json", 975, "60", True),
        ("math_train_prompts/math.json", 7470, "0", False),
    ],
)
def test_real_files(name, count, answer, with_reference):
    source = load_source({"name": str(DATA / name), "on_error": "skip"}, needs_answer=True)
    assert len(source) == count
    assert source[0].answer == answer
    assert bool(source[0].reference) == with_reference
    assert len({e.id for e in source}) == count
    if name.startswith("gsm8k"):
        assert all(last_boxed(e.reference) == e.answer for e in source)
        assert all(e.answer.lstrip("-").replace(".", "").isdigit() for e in source)
        assert not any("####" in e.reference or "<<" in e.reference for e in source)
