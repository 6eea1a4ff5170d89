"""Malformed headers and indices end in an error that says so: no crash, no hang, no wrong load."""

import json
import os
import re
import struct

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config, tiny_params

from models import load_pretrained, save_pretrained

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A sharded and a single-file checkpoint of the same model."""
    directory = tmp_path_factory.mktemp("good")
    config = tiny_config("qwen3", num_layers=1)
    params = tiny_params(config)
    save_pretrained(params, config, directory / "single")
    save_pretrained(params, config, directory / "sharded", max_shard_bytes=20_000)
    return directory


def refuses_or_loads(path, good, numbers=True):
    """Whether loading raises an error that names the directory, or gives what `good` holds.

    Without `numbers`, arrays may hold others than those of `good`.
    """
    try:
        config, params = load_pretrained(path)
    except (ValueError, FileNotFoundError) as error:
        return str(path) in str(error)
    expected_config, expected = load_pretrained(good)
    alike = jax.tree.map(
        lambda x, y: (
            (x.shape, x.dtype) == (y.shape, y.dtype) and (not numbers or np.array_equal(x, y))
        ),
        params,
        expected,
    )
    return config == expected_config and all(jax.tree.leaves(alike))


def header_of(data: bytes) -> tuple[dict, bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@FUZZ
@given(position=st.integers(0, 4000), value=st.binary(min_size=1, max_size=8))
@example(position=0, value=b"\xff" * 8)
@example(position=0, value=b"\x00" * 8)
@example(position=8, value=b"[")
def test_bytes_changed(position, value, good, tmp_path):
    data = (good / "single" / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((good / "single" / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(
        data[:position] + value + data[position + len(value) :]
    )
    # Other bytes of an array are other numbers, which nothing here can tell.
    in_header = position + len(value) <= 8 + struct.unpack("<Q", data[:8])[0]
    assert refuses_or_loads(tmp_path, good / "single", numbers=in_header)


@FUZZ
@given(length=st.integers(0, 20_000))
@example(length=0)
@example(length=7)
def test_file_cut_short(length, good, tmp_path):
    data = (good / "single" / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((good / "single" / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(data[:length])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        load_pretrained(tmp_path)


SIZE = st.integers(-1, 100) | st.sampled_from([2**31, 2**63, 2**64 - 1, 2**64])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F64", "BOOL", "F4", "", "x"]) | st.none(),
        "shape": st.lists(SIZE, max_size=3) | st.none(),
        "data_offsets": st.lists(SIZE, max_size=3) | st.none(),
    }
)


@FUZZ
@given(
    name=st.sampled_from(["model.norm.weight", "model.embed_tokens.weight", "__metadata__", "new"]),
    entry=ENTRY | st.none() | st.integers() | st.lists(st.integers(), max_size=2),
)
@example(
    name="model.norm.weight",
    entry={"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]},
)
def test_header_entry_changed(name, entry, good, tmp_path):
    header, body = header_of((good / "single" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((good / "single" / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(with_header(header | {name: entry}, body))
    assert refuses_or_loads(tmp_path, good / "single")


def test_overlapping_tensors_raise(good, tmp_path):
    header, body = header_of((good / "single" / "model.safetensors").read_bytes())
    names = [n for n in header if n.endswith("input_layernorm.weight")]
    header["model.norm.weight"]["data_offsets"] = header[names[0]]["data_offsets"]
    (tmp_path / "config.json").write_bytes((good / "single" / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(with_header(header, body))
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        load_pretrained(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=30), x, max_size=3),
    max_leaves=4,
)


@FUZZ
@given(
    index=JSON
    | st.fixed_dictionaries({"weight_map": JSON})
    | st.fixed_dictionaries({"weight_map": st.dictionaries(st.text(max_size=9), JSON, min_size=1)})
)
@example(index={"weight_map": {"model.norm.weight": "nul\0.safetensors"}})
def test_index_changed(index, good, tmp_path):
    for file in (good / "sharded").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        load_pretrained(tmp_path)


@FUZZ
@given(text=st.binary(max_size=40))
@example(text=b"{" * 100_000)
@example(text=b'{"a": 1' + b"0" * 10_000 + b"}")
@example(text=np.random.RandomState(0).bytes(64))
def test_config_is_not_json(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(tmp_path)


FIELDS = [
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta",
    "rope_parameters", "rope_scaling", "tie_word_embeddings", "max_position_embeddings", "dtype",
    "torch_dtype", "hidden_act", "attention_bias", "attention_dropout", "layer_types",
    "use_sliding_window", "quantization_config", "auto_map", "new_field",
]  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 2**100, 0.5, -0.0, 1e308, True])
# What may differ without a word: they say nothing about the arrays' meaning.
SAME = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_kv_heads", "head_dim")


@FUZZ
@given(name=st.sampled_from(FIELDS), value=JSON | NUMBERS)
@example(name="num_hidden_layers", value=2**30)
@example(name="head_dim", value=2**30)
@example(name="rope_theta", value=float("nan"))
def test_config_field_changed(name, value, good, tmp_path):
    """Refused, or the very model that the arrays are of: never another shape, and no wrong number."""
    original = json.loads((good / "single" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(original | {name: value}))
    (tmp_path / "model.safetensors").write_bytes(
        (good / "single" / "model.safetensors").read_bytes()
    )
    try:
        config, params = load_pretrained(tmp_path)
    except (ValueError, FileNotFoundError) as error:
        assert str(tmp_path) in str(error)  # noqa: PT017
        return
    before, arrays = load_pretrained(good / "single")
    for field in SAME:
        assert getattr(config, field) == getattr(before, field)
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(arrays), strict=True):
        np.testing.assert_array_equal(x, y)
    assert 0 < config.rope_theta < 1e300 and 0 < config.norm_eps < 1e300


def test_a_config_larger_than_any_is_not_read(good, tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**27)  # sparse
    with pytest.raises(ValueError, match=r"config\.json is 134.* bytes long"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_an_object_is_asked_for_by_name(name, good, tmp_path):
    for file in (good / "sharded").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for text in ("null", "[]", '"x"', "3", '{"a": ', "", "\ufeff{}", "\x00"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            load_pretrained(tmp_path)


def test_special_ids_of_a_damaged_config_are_not_guessed(good, tmp_path):
    config, params = load_pretrained(good / "single")
    for text in ("null", "[]", "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"config\.json (must hold a JSON object|is not valid)"
        ):
            save_pretrained(params, config, tmp_path / "out", tokenizer_from=tmp_path)
        assert not (tmp_path / "out").exists()


NAMES = ["config.json", "model.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "what", ["a pipe", "a link to a device", "a link to a pipe", "a directory"]
)
def test_what_is_no_file_is_not_read(name, what, good, tmp_path):
    """Each would be read without end, or wait for a writer."""
    for file in (good / ("sharded" if "index" in name else "single")).iterdir():
        if file.name != name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    place = tmp_path / name
    if what == "a directory":
        place.mkdir()
    elif what == "a link to a device":
        place.symlink_to("/dev/zero")
    else:
        pipe = place if what == "a pipe" else tmp_path / "pipe"
        os.mkfifo(pipe)
        if pipe != place:
            place.symlink_to(pipe)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{name} is not a regular file"):
        load_pretrained(tmp_path)


def test_a_link_to_a_file_is_read(good, tmp_path):
    """As the Hugging Face cache has them."""
    for file in (good / "single").iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert load_pretrained(tmp_path)[0] == load_pretrained(good / "single")[0]


def test_a_tokenizer_file_that_is_none_does_not_come_along(good, tmp_path):
    config, params = load_pretrained(good / "single")
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a regular file"):
        save_pretrained(params, config, tmp_path / "out", tokenizer_from=tmp_path)
    assert not (tmp_path / "out").exists()
