"""What ends a text: the tokenizer's token, which SFT teaches, and the generation config's."""

import json
import shutil

import pytest

from experiments.tasks.chain_tokenizer import save_chain_tokenizer
from models.text import eos_ids, load_tokenizer

EOS = 97  # the chain tokenizer's <|im_end|>


@pytest.fixture
def directory(tmp_path):
    save_chain_tokenizer(tmp_path)
    return tmp_path


def ends(directory, generation=None, config=None):
    for name, values in (("generation_config.json", generation), ("config.json", config)):
        (directory / name).unlink(missing_ok=True)
        if values is not None:
            (directory / name).write_text(json.dumps(values))
    return eos_ids(load_tokenizer(directory), directory)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, None, (EOS,)),
        ({}, None, (EOS,)),
        ({"temperature": 0.6}, {"eos_token_id": 3}, (EOS,)),
        ({"eos_token_id": None}, None, (EOS,)),
        ({"eos_token_id": []}, None, (EOS,)),
        ({"eos_token_id": EOS}, None, (EOS,)),
        ({"eos_token_id": 5}, None, (EOS, 5)),
        ({"eos_token_id": [5]}, None, (EOS, 5)),
        ({"eos_token_id": [EOS, 0]}, None, (EOS, 0)),
        ({"eos_token_id": [5, EOS, 5, 6]}, None, (EOS, 5, 6)),
        # Without a generation config, that of the model is the one that is used.
        (None, {"eos_token_id": [4, 5]}, (EOS, 4, 5)),
        (None, {"eos_token_id": None}, (EOS,)),
        (None, {}, (EOS,)),
    ],
)
def test_both_end_a_text(generation, config, expected, directory):
    assert ends(directory, generation, config) == expected


def test_a_tokenizer_without_an_end_leaves_it_to_the_generation_config(directory):
    file = directory / "tokenizer_config.json"
    values = json.loads(file.read_text())
    del values["eos_token"]
    file.write_text(json.dumps(values))
    assert ends(directory, {"eos_token_id": [7, 8]}) == (7, 8)
    for generation in (None, {}, {"eos_token_id": []}):
        with pytest.raises(
            ValueError, match=r"set eos_token_id in .*generation_config\.json or eos_"
        ):
            ends(directory, generation)


@pytest.mark.parametrize(
    "wrong", ["97", "<|im_end|>", -1, 98, 10**30, 5.0, True, [5, "97"], [[5]], {"id": 5}, [None]]
)
def test_what_is_no_id_is_refused_by_file(wrong, directory):
    with pytest.raises(ValueError, match=r"/generation_config\.json: eos_token_id=.* below 98"):
        ends(directory, {"eos_token_id": wrong})
    with pytest.raises(ValueError, match=r"/config\.json: eos_token_id=.* below 98"):
        ends(directory, None, {"eos_token_id": wrong})


@pytest.mark.parametrize("text", ["null", "[]", "3", "{", "", "\0"])
def test_a_damaged_generation_config_is_named(text, directory):
    (directory / "generation_config.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"generation_config\.json (is not valid|must hold a JSON)"
    ):
        eos_ids(load_tokenizer(directory), directory)


def test_the_ends_of_released_models(qwen3_directory, tmp_path):
    """Of Qwen3's chat model, a base model, and a model that was tuned with its base's config."""
    qwen = load_tokenizer(qwen3_directory)
    assert (qwen.eos_token_id, eos_ids(qwen, qwen3_directory)) == (151645, (151645, 151643))
    shutil.copy(qwen3_directory / "tokenizer.json", tmp_path)
    values = json.loads((qwen3_directory / "tokenizer_config.json").read_text())
    for token, generation, expected in (
        ("<|endoftext|>", {"eos_token_id": 151643}, (151643,)),
        ("<|im_end|>", {"eos_token_id": 151643}, (151645, 151643)),
        ("<|endoftext|>", {"eos_token_id": [151645, 151643]}, (151643, 151645)),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**values, "eos_token": token}))
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        assert eos_ids(load_tokenizer(tmp_path), tmp_path) == expected
