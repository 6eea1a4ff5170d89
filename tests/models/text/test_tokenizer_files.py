"""Which files a tokenizer is made of, and what becomes of damaged ones."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from experiments.tasks.chain_tokenizer import save_chain_tokenizer
from models.text import encode, load_tokenizer, token_bytes

TEXTS = (
    "Hello world 12345  \n\n x=3",
    "<|im_start|>user\nhi<think>Größe 中文\t\r\n",
    "it's I'LL don't",
    "a  b   c",
    "e\u0301 \\frac{1}{2}",
)


@pytest.fixture
def parts(qwen3_directory, tmp_path):
    """Qwen3's vocabulary and merges as files of their own, without tokenizer.json."""
    whole = json.loads((qwen3_directory / "tokenizer.json").read_text())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(whole["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    shutil.copy(qwen3_directory / "tokenizer_config.json", tmp_path)
    return tmp_path


def test_a_fast_tokenizer_is_built_of_vocabulary_and_merges(parts, qwen3_directory):
    ours, theirs = load_tokenizer(parts), load_tokenizer(qwen3_directory)
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.eos_token, ours.chat_template) == (theirs.eos_token, theirs.chat_template)
    for text in TEXTS:
        assert encode(ours, text) == encode(theirs, text)
    size = max(ours.get_vocab().values()) + 1
    assert token_bytes(ours, size) == token_bytes(theirs, size)
    # The model's config says as much as the tokenizer's.
    config = json.loads((parts / "tokenizer_config.json").read_text())
    del config["tokenizer_class"]
    (parts / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not say how a text is cut.*Qwen2Tokenizer"):
        load_tokenizer(parts)
    (parts / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    assert encode(load_tokenizer(parts), TEXTS[1]) == encode(theirs, TEXTS[1])
    # Half of it is nothing.
    (parts / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.json and mer"):
        load_tokenizer(parts)


def small_parts(directory, **config):
    """All bytes as tokens of a GPT-2-like vocabulary, and one merge."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    vocab = {token: i for i, token in enumerate([*letters, "ab", "<end>"])}
    (directory / "vocab.json").write_text(json.dumps(vocab))
    (directory / "merges.txt").write_text("#version: 0.2\na b\n")
    values = {"eos_token": "<end>", "bos_token": "<end>", "unk_token": "<end>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(values))
    return directory


def test_the_class_that_is_named_builds_it(tmp_path):
    for name in ("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast"):
        tokenizer = load_tokenizer(small_parts(tmp_path, tokenizer_class=name))
        assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "abc 12")) == [
            "ab",
            "c",
            "Ġ",
            "1",
            "2",
        ]
        assert tokenizer.eos_token_id == 257
    for name in ("LlamaTokenizer", "PreTrainedTokenizerFast", None, 5, ["Qwen2Tokenizer"]):
        with pytest.raises(ValueError, match="names a tokenizer_class that does"):
            load_tokenizer(small_parts(tmp_path, tokenizer_class=name))


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_damaged_parts_are_named(name, tmp_path):
    for content in (b"[]", b"null", b"{", b"\xff\xff", b'{"a": "b"}'):
        small_parts(tmp_path, tokenizer_class="Qwen2Tokenizer")
        (tmp_path / name).write_bytes(content)
        try:
            load_tokenizer(tmp_path)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017
        else:
            assert name == "merges.txt"  # a list of other merges is one, too


FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", ["null", "[]", "5", "{", "", '{"a": 1' + "0" * 5000 + "}"])
def test_damaged_json_is_named(name, text, tmp_path):
    save_chain_tokenizer(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/{name} (is not valid|must hold a JSON obj)"):
        load_tokenizer(tmp_path)


def test_json_of_another_kind_is_named(tmp_path):
    for name, text in (
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": null}'),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "None"}}'),
        ("tokenizer_config.json", '{"eos_token": 5}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
    ):
        save_chain_tokenizer(tmp_path)
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{tmp_path}/{name} is malformed"):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja", "config.json", "merges.txt"])
@pytest.mark.parametrize("target", ["/dev/zero", "a pipe", "a directory"])
def test_what_is_no_file_is_not_read(name, target, tmp_path):
    save_chain_tokenizer(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if target == "a pipe":
        os.mkfifo(tmp_path / name)
    elif target == "a directory":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(ValueError, match=f"{name} is not a regular file"):
        load_tokenizer(tmp_path)


def test_transformers_is_imported_when_a_tokenizer_is_read():
    heavy = "{'transformers', 'tokenizers'}"
    program = f"import sys, models, models.text; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
