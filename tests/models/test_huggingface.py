"""config.json to `ModelConfig`: both dialects, defaults, and fields that must raise."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config

from models import Llama3RopeScaling, ModelConfig, load_config
from models.huggingface.config import config_from_json, config_to_json

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# As released, weights aside.
QWEN3_0_6B = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
    "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
    "use_cache": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
R1_DISTILL_QWEN_1_5B = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02,
    "intermediate_size": 8960, "max_position_embeddings": 131072, "max_window_layers": 21,
    "model_type": "qwen2", "num_attention_heads": 12, "num_hidden_layers": 28,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4096,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.44.0",
    "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
R1_DISTILL_LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": LLAMA3, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": True,
    "vocab_size": 128256,
}  # fmt: skip


def minimal(family: str = "qwen3", **changes) -> dict:
    return {"model_type": family, **SIZES, **changes}


def test_released_configs():
    assert config_from_json(QWEN3_0_6B) == ModelConfig(
        family="qwen3", vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_layers=28,
        num_heads=16, num_kv_heads=8, head_dim=128, rope_theta=1e6, norm_eps=1e-6,
        tie_embeddings=True, qk_norm=True, max_positions=40960, dtype="bfloat16",
    )  # fmt: skip
    assert config_from_json(R1_DISTILL_QWEN_1_5B) == ModelConfig(
        family="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_layers=28,
        num_heads=12, num_kv_heads=2, head_dim=128, rope_theta=1e4, norm_eps=1e-6,
        qkv_bias=True, max_positions=131072, dtype="bfloat16",
    )  # fmt: skip
    assert config_from_json(R1_DISTILL_LLAMA_8B) == ModelConfig(
        family="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
        num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, rope_theta=5e5,
        rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 8192), norm_eps=1e-5,
        max_positions=131072, dtype="bfloat16",
    )  # fmt: skip


def test_dialects_mean_the_same(family):
    scaling = LLAMA3 if family == "llama" else None
    old = minimal(family, rope_theta=5e5, rope_scaling=scaling, torch_dtype="bfloat16")
    new = minimal(
        family,
        rope_parameters={**(scaling or {"rope_type": "default"}), "rope_theta": 5e5},
        dtype="bfloat16",
    )
    assert config_from_json(old) == config_from_json(new) == config_from_json({**old, **new})
    assert config_from_json(old).rope_theta == 5e5


def test_older_name_of_rope_type():
    values = minimal("llama", rope_scaling={"type": "llama3", **LLAMA3})
    del values["rope_scaling"]["rope_type"]
    assert config_from_json(values) == config_from_json(minimal("llama", rope_scaling=LLAMA3))


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
def test_absent_fields_take_the_defaults_of_transformers(family):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(family, **SIZES | {"num_key_value_heads": 32})
    values = minimal(family, num_attention_heads=32, hidden_size=64)
    del values["num_key_value_heads"]
    ours = config_from_json(values)
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.max_positions == theirs.max_position_embeddings
    assert ours.tie_embeddings == theirs.tie_word_embeddings
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.num_kv_heads == 32
    assert ours.head_dim == (128 if family == "qwen3" else 2)
    assert ours.dtype == "float32"


def test_null_head_fields():
    config = config_from_json(minimal("qwen3", head_dim=None, num_key_value_heads=None))
    assert (config.head_dim, config.num_kv_heads) == (8, 4)


UNSUPPORTED = [
    ("use_sliding_window", True, {}),
    ("use_sliding_window", True, {"sliding_window": 4096, "max_window_layers": 1}),
    ("use_sliding_window", True, {"max_window_layers": "many"}),
    ("use_sliding_window", "yes", {}),
    ("hidden_act", "gelu", {}),
    ("attention_bias", True, {}),
    ("attention_bias", True, {"model_type": "llama"}),
    ("mlp_bias", True, {"model_type": "llama"}),
    ("layer_types", ["full_attention", "sliding_attention"], {}),
    ("layer_types", ["full_attention"], {}),
    ("attention_dropout", 0.1, {}),
    ("pretraining_tp", 2, {"model_type": "llama"}),
    ("quantization_config", {"quant_method": "fp8"}, {}),
    ("partial_rotary_factor", 0.5, {}),
    ("model_type", "qwen3_moe", {}),
    ("model_type", None, {}),
    ("num_experts", 8, {}),
    ("use_mrope", True, {}),
    ("rope_interleaved", True, {"model_type": "llama"}),
    ("residual_multiplier", 0.22, {}),
    ("output_router_logits", True, {}),
    ("qk_norm", False, {}),
    ("qkv_bias", True, {}),
    ("auto_map", {"AutoModelForCausalLM": "modeling.Model"}, {}),
    ("dual_chunk_attention_config", {"chunk_size": 262144}, {}),
    ("no_rope_layers", [1, 0], {}),
    ("final_logit_softcapping", 30.0, {}),
    ("gradient_checkpoint", False, {}),
    ("torch_dtype", "float64", {}),
    ("dtype", "bfloat16", {"torch_dtype": "float32"}),
    ("tie_word_embeddings", 1, {}),
    ("rms_norm_eps", None, {}),
    ("rms_norm_eps", float("nan"), {}),
    ("rope_theta", 0, {}),
    ("head_dim", 12.0, {}),
    ("num_hidden_layers", True, {}),
    ("vocab_size", -1, {}),
    ("hidden_size", 2**40, {}),
    ("hidden_size", 30, {"model_type": "llama"}),
    ("rope_scaling", "llama3", {}),
    ("rope_scaling", {"rope_type": "dynamic", "factor": 4.0}, {}),
    ("rope_scaling", {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}, {}),
    ("rope_scaling", {"rope_type": "linear"}, {}),
    ("rope_scaling", {"rope_type": "linear", "factor": 0.5}, {}),
    ("rope_scaling", {"rope_type": "linear", "factor": "2"}, {}),
    ("rope_scaling", {"rope_type": "linear", "factor": 2.0, "beta_fast": 32}, {}),
    ("rope_scaling", {"rope_type": "mrope", "mrope_section": [16, 24, 24]}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 0.5}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "beta_fast": 0.5}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "attention_factor": -1.0}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "mscale": "x"}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "truncate": 1}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "extrapolation_factor": 2.0}, {}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "short_factor": [1.0]}, {}),
    ("rope_scaling", {"rope_type": "yarn", "original_max_position_embeddings": 2**20}, {}),
    (
        "rope_scaling",
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096},
        {"original_max_position_embeddings": 8192},
    ),
    ("rope_theta", 1, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    ("rope_scaling", {"rope_type": "default", "factor": 2.0}, {}),
    ("rope_scaling", {"rope_type": "default", "partial_rotary_factor": 0.5}, {}),
    ("rope_scaling", {**LLAMA3, "type": "yarn"}, {}),
    ("rope_scaling", {**LLAMA3, "factor": 0.5}, {}),
    ("rope_scaling", {**LLAMA3, "high_freq_factor": 1.0}, {}),
    ("rope_scaling", {**LLAMA3, "beta_fast": 32}, {}),
    ("rope_scaling", {k: v for k, v in LLAMA3.items() if k != "low_freq_factor"}, {}),
    ("rope_scaling", LLAMA3, {"rope_parameters": {"rope_type": "default"}}),
    ("rope_theta", 1e6, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ("rope_parameters", {"full_attention": {"rope_type": "default"}}, {}),
]


@pytest.mark.parametrize(("field", "value", "others"), UNSUPPORTED)
def test_unsupported_value_raises(field, value, others):
    with pytest.raises(ValueError, match=field) as raised:
        config_from_json(minimal(**others) | {field: value}, "some/config.json")
    assert "some/config.json" in str(raised.value)


@pytest.mark.parametrize("field", ["model_type", *SIZES])
def test_missing_required_field_raises(field):
    values = minimal("qwen3")
    del values[field]
    if field == "num_key_value_heads":  # has a default, which does not suit 4 heads
        with pytest.raises(ValueError, match="num_kv_heads=32"):
            config_from_json(values)
        return
    with pytest.raises(ValueError, match=f"config.json: field '{field}' is missing"):
        config_from_json(values)


def test_qwen2_bias_cannot_be_switched_off():
    assert config_from_json(minimal("qwen2")).qkv_bias
    with pytest.raises(ValueError, match="attention_bias"):
        config_from_json(minimal("qwen2", attention_bias=False))


def test_round_trip(family):
    config = tiny_config(family, dtype="bfloat16", max_positions=777, norm_eps=3e-6)
    values = json.loads(json.dumps(config_to_json(config, "bfloat16", {"eos_token_id": 5})))
    assert config_from_json(values) == config
    assert (values["eos_token_id"], values["bos_token_id"]) == (5, None)


@pytest.mark.parametrize("dialect", ["old", "new"])
def test_transformers_reads_either_dialect_of_ours(family, dialect):
    transformers = pytest.importorskip("transformers")
    config = tiny_config(family, hidden_size=48)
    values = config_to_json(config, "bfloat16")
    other = ("rope_parameters", "dtype") if dialect == "old" else ("rope_theta", "rope_scaling", "torch_dtype")  # fmt: skip
    for name in other:
        del values[name]
    theirs = transformers.AutoConfig.for_model(**values)
    assert str(theirs.dtype).removeprefix("torch.") == "bfloat16"
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    expected = "llama3" if config.rope_scaling else "default"
    assert theirs.rope_parameters["rope_type"] == expected
    assert theirs.eos_token_id is None
    assert config_from_json(theirs.to_dict()) == config.replace(dtype="bfloat16")


@pytest.mark.parametrize("changes", [{"family": "mistral"}, {"qkv_bias": True}, {"qk_norm": False}])
def test_what_no_family_has_is_not_written(changes):
    with pytest.raises(ValueError, match="family="):
        config_to_json(tiny_config("qwen3").replace(**changes), "float32")


def test_load_config_names_the_file(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"config\.json: field 'model_type' is 'gpt2'"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid JSON"):
        load_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a local directory"):
        load_config("Qwen/Qwen3-4B")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), children, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = sorted(QWEN3_0_6B.keys() | R1_DISTILL_LLAMA_8B.keys() | {"rope_parameters", "layer_types"})


@settings(max_examples=400, deadline=None)
@given(
    base=st.sampled_from([QWEN3_0_6B, R1_DISTILL_QWEN_1_5B, R1_DISTILL_LLAMA_8B]),
    changes=st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=3),
    removed=st.sets(st.sampled_from(FIELDS), max_size=2),
)
def test_any_config_is_mapped_or_refused(base, changes, removed):
    values = {k: v for k, v in (base | changes).items() if k not in removed}
    try:
        config = config_from_json(values)
    except ValueError as error:
        assert str(error).startswith("config.json: ")  # noqa: PT017
    else:
        again = config_from_json(config_to_json(config, config.dtype))
        assert again == config


@given(name=st.text(min_size=1, max_size=20), value=ANY_JSON.filter(lambda x: x is not None))
def test_a_field_we_have_not_heard_of_raises(name, value):
    with pytest.raises(ValueError, match="is not supported, and ignoring it"):
        config_from_json(minimal("qwen3") | {f"new_{name}": value})


@given(values=ANY_JSON)
def test_anything_else_raises(values):
    with pytest.raises(ValueError, match=r"config\.json: "):
        config_from_json(values)
