"""Reading and writing Hugging Face directories."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import tiny_config, tiny_params

import models.huggingface.export
from models import load_pretrained, save_pretrained
from models.dtypes import DTYPES
from models.huggingface.checkpoint import all_finite
from models.huggingface.export import TOKENIZER_FILES


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny model and returns its config, parameters and directory."""

    def save(family="qwen3", dtype="float32", **changes):
        config = tiny_config(family, dtype=dtype, **changes)
        params = tiny_params(config, dtype=dtype)
        save_pretrained(params, config, tmp_path / "saved")
        return config, params, tmp_path / "saved"

    return save


def rewrite(path, change, file="model.safetensors"):
    """Replaces a file of tensors by `change(tensors)`."""
    tensors = load_file(path / file)
    save_file(change(tensors), path / file)


def edit_json(file, **changes):
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | changes))


def assert_same(params, others):
    jax.tree.map(np.testing.assert_array_equal, params, others)
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(lambda x: x.dtype, others)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_exact(family, dtype, tied, saved):
    config, params, path = saved(family, dtype, tie_embeddings=tied)
    config_again, params_again = load_pretrained(path)
    assert config_again == config
    assert_same(params_again, params)


@pytest.mark.parametrize("max_shard_bytes", [1, 20_000])
def test_sharded_round_trip_is_exact(max_shard_bytes, saved, tmp_path):
    config, params, _ = saved()
    path = tmp_path / "sharded"
    save_pretrained(params, config, path, max_shard_bytes=max_shard_bytes)
    index = json.loads((path / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert len(files) == (25 if max_shard_bytes == 1 else 5)
    assert index["metadata"]["total_size"] == 4 * models.count(config)
    for file in files:
        tensors = load_file(path / file)
        assert len(tensors) == 1 or sum(x.nbytes for x in tensors.values()) <= max_shard_bytes
    config_again, params_again = load_pretrained(path)
    assert config_again == config
    assert_same(params_again, params)


def test_matrices_lie_as_in_pytorch(saved):
    config, params, path = saved("qwen2", tie_embeddings=False)
    tensors = load_file(path / "model.safetensors")
    q = np.asarray(params["layers"]["q"][1]).reshape(config.hidden_size, -1)
    np.testing.assert_array_equal(tensors["model.layers.1.self_attn.q_proj.weight"], q.T)
    o = np.asarray(params["layers"]["o"][0]).reshape(-1, config.hidden_size)
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.o_proj.weight"], o.T)
    np.testing.assert_array_equal(
        tensors["model.layers.0.self_attn.k_proj.bias"], params["layers"]["k_bias"][0].ravel()
    )
    with safe_open(path / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_casts_when_asked(saved, tmp_path):
    _, params, path = saved()
    config, loaded = load_pretrained(path, dtype="bfloat16")
    assert config.dtype == "bfloat16"
    assert_same(loaded, jax.tree.map(lambda x: x.astype("bfloat16"), params))
    save_pretrained(loaded, config, tmp_path / "float32", dtype="float32")
    config, again = load_pretrained(tmp_path / "float32")
    assert config.dtype == "float32"
    assert_same(again, jax.tree.map(lambda x: x.astype("float32"), loaded))
    for other in ("int8", "float64", float, jnp.int32, 3, ""):
        with pytest.raises(ValueError, match=r"^dtype=.*supported are 'float32', 'bfloat16'"):
            load_pretrained(path, dtype=other)
        with pytest.raises(ValueError, match=r"^dtype=.*supported"):
            save_pretrained(loaded, config, tmp_path / "other", dtype=other)
        with pytest.raises(ValueError, match=r"^dtype=.*supported"):
            config.replace(dtype=other)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_dtypes_are_named_or_given(name, saved, tmp_path):
    """As a string, as JAX's and numpy's scalar types, or as what they make of it."""
    _, _, path = saved()
    config, params = load_pretrained(path, dtype=name)
    for dtype in (getattr(jnp, name), jnp.dtype(name), np.dtype(name).type):
        again, arrays = load_pretrained(path, dtype=dtype)
        assert again == config and again.dtype == name and hash(again) == hash(config)
        assert_same(arrays, params)
        assert models.ModelConfig(**{**vars(config), "dtype": dtype}) == config
        save_pretrained(params, config, tmp_path / "saved-again", dtype=dtype)
        values = json.loads((tmp_path / "saved-again" / "config.json").read_text())
        assert values["dtype"] == values["torch_dtype"] == name
        drawn = models.init(jax.random.key(0), config, dtype)
        assert_same(drawn, models.init(jax.random.key(0), config, name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad, dtype, saved, tmp_path):
    config, params, path = saved(dtype=dtype)

    def spoil(tensors):
        tensors[NAME][-1, -1] = bad
        return tensors

    rewrite(path, spoil)
    for into in (None, "float32"):
        with pytest.raises(
            ValueError, match=rf"model\.safetensors: tensor '{NAME}' holds NaN or inf"
        ):
            load_pretrained(path, dtype=into)
    params["final_norm"] = params["final_norm"].at[0].set(bad)
    with pytest.raises(ValueError, match=r"'final_norm' holds numbers that are no finite ones"):
        save_pretrained(params, config, tmp_path / "spoilt")
    assert not (tmp_path / "spoilt").exists()


def test_numbers_too_large_for_a_dtype_are_refused(saved, tmp_path):
    config, params, path = saved()
    big = dict(params, final_norm=params["final_norm"].at[3].set(70_000.0))
    save_pretrained(big, config, path)
    assert_same(load_pretrained(path)[1], big)
    load_pretrained(path, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' holds numbers beyond .* float16"):
        load_pretrained(path, dtype="float16")
    with pytest.raises(ValueError, match="final_norm"):
        save_pretrained(big, config, tmp_path / "half", dtype="float16")


@given(bits=st.lists(st.integers(0, 2**32 - 1), max_size=9), dtype=st.sampled_from(DTYPES))
def test_finite_by_bits_is_finite(bits, dtype):
    array = np.array(bits, np.uint32).view(np.dtype(dtype))
    assert all_finite(array) == bool(np.all(np.isfinite(array.astype(np.float32))))


def test_dtype_comes_from_the_tensors_not_the_config(saved):
    _, _, path = saved(dtype="bfloat16")
    edit_json(path / "config.json", dtype=None, torch_dtype="float32")
    assert load_pretrained(path)[0].dtype == "bfloat16"


def test_mixed_dtypes_need_a_decision(saved, tmp_path):
    config, params, path = saved(dtype="bfloat16")
    rewrite(path, lambda t: {n: x.astype(np.float32) if "norm" in n else x for n, x in t.items()})
    with pytest.raises(ValueError, match="BF16, F32; say which"):
        load_pretrained(path)
    assert_same(load_pretrained(path, dtype="bfloat16")[1], params)
    params["final_norm"] = params["final_norm"].astype("float32")
    with pytest.raises(ValueError, match="say which to save"):
        save_pretrained(params, config, tmp_path / "mixed")


def test_padded_vocabulary(saved):
    config, _, path = saved(vocab_size=80)
    loaded, params = load_pretrained(path)
    assert loaded.vocab_size == config.vocab_size == params["embed"].shape[0] == 80


def test_rotary_frequencies_of_old_checkpoints_are_ignored(saved):
    _, params, path = saved("llama", "bfloat16")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(path, lambda t: t | {name: np.ones(6, np.float32)})
    assert_same(load_pretrained(path)[1], params)


def test_tied_head_on_disk_must_equal_the_embeddings(saved):
    _, params, path = saved(tie_embeddings=True)
    rewrite(path, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].copy()})
    assert_same(load_pretrained(path)[1], params)
    rewrite(path, lambda t: t | {"lm_head.weight": t["lm_head.weight"] + 1})
    with pytest.raises(ValueError, match=r"lm_head\.weight.*differs"):
        load_pretrained(path)


NAME = "model.layers.1.mlp.up_proj.weight"
BROKEN = {
    "missing": (lambda t: {n: x for n, x in t.items() if n != NAME}, NAME),
    "unexpected": (lambda t: t | {"model.layers.2.x": t[NAME]}, "model.layers.2.x"),
    "transposed": (lambda t: t | {NAME: np.ascontiguousarray(t[NAME].T)}, NAME),
    "integers": (lambda t: t | {NAME: t[NAME].astype(np.int32)}, f"{NAME}.*I32"),
    "float8": (lambda t: t | {NAME: t[NAME].astype(ml_dtypes.float8_e4m3fn)}, f"{NAME}.*F8_E4M3"),
    "no tensors": (lambda t: {}, "model.embed_tokens.weight"),
}


@pytest.mark.parametrize("problem", list(BROKEN))
def test_wrong_tensors_raise(problem, saved):
    change, message = BROKEN[problem]
    _, _, path = saved()
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        load_pretrained(path)


def test_untied_config_needs_a_head(saved):
    _, _, path = saved(tie_embeddings=True)
    edit_json(path / "config.json", tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"missing: lm_head\.weight\."):
        load_pretrained(path)


def test_more_layers_than_tensors_raises_at_once(saved):
    _, _, path = saved()
    edit_json(path / "config.json", num_hidden_layers=2**31 - 1)
    with pytest.raises(ValueError, match="are missing"):
        load_pretrained(path)


def test_only_safetensors_are_read(saved):
    _, _, path = saved()
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="Only safetensors"):
        load_pretrained(path)


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/model.safetensors", "..", "a\\..\\m.safetensors",
             "sub/m.safetensors", "model.bin", "", 3, None],
)  # fmt: skip
def test_index_stays_in_its_directory(file, saved):
    config, params, path = saved()
    save_pretrained(params, config, path, max_shard_bytes=20_000)
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=weight_map | {"model.norm.weight": file})
    with pytest.raises(ValueError, match=r"'model\.norm\.weight'"):
        load_pretrained(path)


def test_index_and_shards_must_agree(saved):
    config, params, path = saved()
    save_pretrained(params, config, path, max_shard_bytes=20_000)
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=weight_map | {"model.more.weight": weight_map[NAME]})
    with pytest.raises(ValueError, match=r"'model\.more\.weight' is not there"):
        load_pretrained(path)
    del weight_map[NAME]
    edit_json(index, weight_map=weight_map)
    with pytest.raises(ValueError, match=f"{NAME}' does not belong there"):
        load_pretrained(path)
    edit_json(index, weight_map=weight_map | {NAME: "a.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors does not exist"):
        load_pretrained(path)


def test_tokenizer_and_special_ids_come_along(saved, tmp_path):
    config, params, source = saved()
    for name in TOKENIZER_FILES:
        (source / name).write_text(f"contents of {name}")
    (source / "notes.md").write_text("not a tokenizer file")
    edit_json(source / "config.json", eos_token_id=[5, 6], bos_token_id=4)
    save_pretrained(params, config, tmp_path / "a" / "b", tokenizer_from=source)
    for name in TOKENIZER_FILES:
        assert (tmp_path / "a" / "b" / name).read_text() == f"contents of {name}"
    assert not (tmp_path / "a" / "b" / "notes.md").exists()
    # saved once more in the same place, without saying where from
    save_pretrained(params, config, tmp_path / "a" / "b")
    values = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert (values["eos_token_id"], values["bos_token_id"]) == ([5, 6], 4)
    assert values["pad_token_id"] is None
    assert (tmp_path / "a" / "b" / "tokenizer.json").exists()


def test_further_files_are_part_of_the_directory(saved, tmp_path):
    config, params, source = saved()
    for name in ("tokenizer.json", "chat_template.jinja", "chat_template.json"):
        (source / name).write_text(f"old {name}")
    texts = {"README.md": "card", "chat_template.jinja": "new", "chat_template.json": None}
    out = tmp_path / "out"
    for _ in range(2):  # the second time it is replaced
        save_pretrained(params, config, out, source, texts=texts)
        found = {p.name: p.read_text() for p in out.iterdir() if p.suffix in (".md", ".jinja")}
        assert found == {"README.md": "card", "chat_template.jinja": "new"}
        assert not (out / "chat_template.json").exists()
        assert (out / "tokenizer.json").read_text() == "old tokenizer.json"
    for name in ("config.json", "model.safetensors", "a/b", "..", ""):
        with pytest.raises(ValueError, match="not a name that a further file may have"):
            save_pretrained(params, config, tmp_path / "x", texts={name: ""})
    empty = tmp_path / "empty"
    empty.mkdir()
    save_pretrained(params, config, empty)
    assert_same(load_pretrained(empty)[1], params)


def test_replacing_leaves_no_old_shards(saved):
    config, params, path = saved()
    save_pretrained(params, config, path, max_shard_bytes=20_000)
    save_pretrained(params, config, path)
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in path.parent.iterdir()] == ["saved"]


def test_foreign_files_are_not_replaced(saved, tmp_path):
    config, params, path = saved()
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        save_pretrained(params, config, path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        save_pretrained(params, config, tmp_path / "file")


def test_interrupted_save_leaves_the_old_checkpoint(saved, monkeypatch):
    config, params, path = saved()
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def full_disk(*args, **options):
        raise OSError("No space left on device")

    rename = Path.rename

    def rename_once(self, target):
        if self.name.startswith(".saved") and (self / "config.json").exists() and not path.exists():
            monkeypatch.setattr(Path, "rename", rename)
            full_disk()
        return rename(self, target)

    for place, name, broken in (
        (models.huggingface.export, "save_file", full_disk),
        (Path, "write_text", full_disk),
        (Path, "rename", rename_once),  # when the old one has made room already
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            with pytest.raises(OSError, match="No space left"):
                save_pretrained(jax.tree.map(lambda x: x + 1, params), config, path)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before
        assert [p.name for p in path.parent.iterdir()] == ["saved"]


def test_parameters_of_another_config_are_not_saved(saved, tmp_path):
    config, params, _ = saved()
    with pytest.raises(ValueError, match=r"'head' is \(64, 32\), but the config asks for no such"):
        save_pretrained(params, config.replace(tie_embeddings=True), tmp_path / "x")
    with pytest.raises(ValueError, match=r"'layers/down' is \(2, 48, 32\).*\(2, 50, 32\)"):
        save_pretrained(params, config.replace(intermediate_size=50), tmp_path / "x")
    del params["final_norm"]
    with pytest.raises(ValueError, match="'final_norm' is missing"):
        save_pretrained(params, config, tmp_path / "x")
    assert not (tmp_path / "x").exists()
