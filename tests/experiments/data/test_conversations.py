"""Records that hold messages, lists, or no answer: read, or refused with the path that reads them."""

import json

import pytest

from experiments.data.sources import load_source

USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "\\boxed{4}"}
SYSTEM = {"role": "system", "content": "Be brief."}
HUMAN, GPT = {"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "\\boxed{4}"}


def read(tmp_path, record, needs_answer=False, **fields):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(record) + "\n")
    [example] = load_source({"name": str(path), "fields": fields}, needs_answer)
    return example.problem, example.answer, example.reference


@pytest.mark.parametrize("message", [USER, HUMAN])
def test_a_prompt_of_one_message_is_its_text(tmp_path, message):
    record = {"prompt": [message], "reward_model": {"ground_truth": "4"}}
    assert read(tmp_path, record) == ("2 + 2?", "4", "")


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        ([SYSTEM, USER], "prompt.1.content"),
        ([USER, ANSWER], "prompt.0.content"),
        ([ANSWER], "prompt.0.content"),
        ([HUMAN, GPT, HUMAN], "prompt.2.value"),
    ],
)
def test_of_several_messages_the_one_that_is_meant_must_be_named(tmp_path, messages, path):
    """A system message must not be lost without a word."""
    record = {"prompt": messages, "answer": "4"}
    with pytest.raises(ValueError, match=rf"line 1: field 'prompt' is a conversation.*{path}"):
        read(tmp_path, record)
    assert read(tmp_path, record, problem=path)[1] == "4"


@pytest.mark.parametrize("name", ["messages", "conversations"])
@pytest.mark.parametrize("pair", [(USER, ANSWER), (HUMAN, GPT)])
def test_a_record_of_messages_says_how_to_map_them(tmp_path, name, pair):
    text = "content" if pair[0] is USER else "value"
    with pytest.raises(ValueError, match=rf"fields.problem .* here '{name}\.0\.{text}'"):
        read(tmp_path, {name: list(pair)})
    fields = {"problem": f"{name}.0.{text}", "reference": f"{name}.-1.{text}"}
    assert read(tmp_path, {name: list(pair)}, **fields) == ("2 + 2?", "4", "\\boxed{4}")


def test_a_record_may_be_a_list(tmp_path):
    assert read(tmp_path, ["p", "7"], problem="0", answer="-1") == ("p", "7", "")
    messages = [USER, ANSWER]
    mapped = {"problem": "0.content", "reference": "-1.content"}
    assert read(tmp_path, messages, **mapped)[:2] == ("2 + 2?", "4")
    with pytest.raises(ValueError, match=r"the record has '0', '1'.*here '0\.content'"):
        read(tmp_path, messages)


@pytest.mark.parametrize("place", ["2", "-3", "x", "--1", "1.5", "9" * 12, "", "٣"])
def test_no_place_in_a_list(tmp_path, place):
    with pytest.raises(ValueError, match=r"line 1: no field"):
        read(tmp_path, {"texts": ["a", "b"]}, problem=f"texts.{place}")


def test_a_name_with_dots_comes_before_a_path(tmp_path):
    record = {"a.0": "whole", "a": ["part"], "answer": 1}
    assert read(tmp_path, record, problem="a.0")[0] == "whole"


@pytest.mark.parametrize("record", [{"problem": "p"}, {"problem": "p", "answer": None}])
def test_an_answer_is_needed_where_something_grades(tmp_path, record):
    record["solution"] = "<think>a trace that was cut off"
    assert read(tmp_path, record) == ("p", "", record["solution"])
    with pytest.raises(ValueError, match=r"line 1: .*'answer'"):
        read(tmp_path, record, needs_answer=True)


def test_a_mapped_answer_must_be_there(tmp_path):
    """A misspelt field is not a data set without answers."""
    with pytest.raises(ValueError, match="no field 'anwser'"):
        read(tmp_path, {"problem": "p", "answer": 1}, answer="anwser")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + bytes(99) + b"PAR1"])
def test_damaged_parquet_names_its_file(tmp_path, damage):
    path = tmp_path / "data.parquet"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"data\.parquet is not valid Parquet"):
        load_source({"name": str(path)})


def test_damaged_pages_of_parquet_name_the_file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = tmp_path / "data.parquet"
    table = pa.table({"problem": [f"p{i}" * 40 for i in range(400)], "answer": ["1"] * 400})
    pyarrow.parquet.write_table(table, path, compression="snappy")
    whole = path.read_bytes()
    refused = 0
    for place in range(4, len(whole) - 300, 61):
        path.write_bytes(
            whole[:place] + bytes(b ^ 0x55 for b in whole[place : place + 24]) + whole[place + 24 :]
        )
        try:
            load_source({"name": str(path)})
        except ValueError as error:
            assert "data.parquet" in str(error)  # noqa: PT017
            refused += 1
    assert refused
