"""Malformed data and tokenizer files: a clear error or a skip; never a crash, a hang or a wrong load."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.data.sources import load_source
from experiments.tasks.example import Example
from models.embedded import EMBEDDED
from models.text.tokenizer import eos_ids, load_tokenizer

FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = [{"problem": f"p{i}", "answer": str(i), "reference": f"so {i}"} for i in range(4)]
LINES = [json.dumps(record).encode() for record in GOOD]
EXPECTED = [
    Example(f"data.jsonl:{i + 1}", f"p{i}", f"so {i}", str(i), "data") for i in range(len(GOOD))
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=9), x, max_size=3),
    max_leaves=4,
)


def load(path, content: bytes, **options):
    """The examples, or the error's message, which names the file."""
    path.write_bytes(content)
    try:
        return list(load_source({"name": str(path), **options}, needs_answer=True))
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        return str(error)


def check_others(found, line: int):
    """All but one line are as they were; that one, if it is there, is whole text."""
    others = [e for e in found if e.id != f"data.jsonl:{line + 1}"]
    assert others == [e for i, e in enumerate(EXPECTED) if i != line]
    for e in found:
        assert e.problem.strip() and e.answer.strip()
        (e.problem + e.answer + e.reference).encode()


@FUZZ
@given(line=st.integers(0, 3), junk=st.binary(max_size=40).filter(lambda b: b"\n" not in b))
@example(line=1, junk=b"[" * 100_000)
@example(line=1, junk=b'{"problem": 1' + b"0" * 10_000 + b"}")
@example(line=1, junk=b'{"problem": "\\ud800", "answer": "1"}')
@example(line=1, junk=b'{"problem": "p", "answer": Infinity}')
@example(line=1, junk=b'{"problem": "p", "problem": "", "answer": "1"}')
@example(line=1, junk=b"\xef\xbb\xbf{}")
def test_a_line_of_junk(line, junk, tmp_path):
    content = b"\n".join([*LINES[:line], junk, *LINES[line + 1 :]])
    check_others(load(tmp_path / "data.jsonl", content, on_error="skip"), line)
    raised = load(tmp_path / "data.jsonl", content)
    if isinstance(raised, str):
        assert f"line {line + 1}:" in raised


@FUZZ
@given(place=st.integers(0, len(b"\n".join(LINES)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_other_line(place, bit, tmp_path):
    content = bytearray(b"\n".join(LINES))
    content[place] ^= 1 << bit
    if content[place] == ord("\n") or b"\n".join(LINES)[place] == ord("\n"):
        return  # lines are joined or parted: their numbers change
    check_others(
        load(tmp_path / "data.jsonl", bytes(content), on_error="skip"),
        bytes(content).count(b"\n", 0, place),
    )


@FUZZ
@given(record=st.fixed_dictionaries({}, optional={k: JSON for k in GOOD[0]}) | JSON)
def test_fields_of_any_kind(record, tmp_path):
    content = b"\n".join([LINES[0], json.dumps(record).encode(), *LINES[2:]])
    check_others(load(tmp_path / "data.jsonl", content, on_error="skip"), 1)


@FUZZ
@given(content=st.binary(max_size=60) | JSON.map(lambda x: json.dumps(x).encode()))
@example(content=b"[" * 100_000)
def test_a_list_of_records_in_one_document(content, tmp_path):
    found = load(tmp_path / "data.json", content, on_error="skip")
    assert isinstance(found, str) or all(e.problem and e.answer for e in found)


SOURCE = EMBEDDED / "tokenizer"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tokenizer_files(name, data, tmp_path):
    """Cut short, or junk: refused with the directory's name, or as it was."""
    directory = tmp_path / "t"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(SOURCE, directory)
    whole = (SOURCE / name).read_bytes()
    content = data.draw(
        st.integers(0, len(whole)).map(lambda n: whole[:n])
        | st.binary(max_size=30)
        | JSON.map(lambda x: json.dumps(x).encode())
    )
    (directory / name).write_bytes(content)
    try:
        tokenizer = load_tokenizer(directory)
    except (ValueError, FileNotFoundError) as error:
        assert str(directory) in str(error)  # noqa: PT017
        return
    assert tokenizer.get_vocab() == load_tokenizer(SOURCE).get_vocab()


@FUZZ
@given(
    content=st.binary(max_size=30) | JSON.map(lambda x: json.dumps({"eos_token_id": x}).encode())
)
@example(content=b"[" * 100_000)
@example(content=b"[1]")
@example(content=b'{"eos_token_id": []}')
@example(content=b'{"eos_token_id": -1}')
@example(content=b'{"eos_token_id": 98}')
@example(content=b'{"eos_token_id": true}')
def test_generation_configs(content, tmp_path):
    (tmp_path / "generation_config.json").write_bytes(content)
    tokenizer = load_tokenizer(SOURCE)
    try:
        ids = eos_ids(tokenizer, tmp_path)
    except ValueError as error:
        assert "generation_config.json" in str(error)  # noqa: PT017
        return
    assert ids and all(type(i) is int and 0 <= i < len(tokenizer) for i in ids)
