"""config.json as others publish it: what does nothing is read over, the rest is understood."""

import warnings

import pytest

from models import LinearRopeScaling, Llama3RopeScaling, YarnRopeScaling
from models.huggingface import config_from_json, config_to_json

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def read(family="qwen2", **fields):
    return config_from_json({"model_type": family, **SIZES, **fields})


# Of released models and of trainers: each with the values that say nothing.
HARMLESS = {
    "SmolLM2": {
        "is_llama_config": True,
        "rope_interleaved": False,
        "rope_scaling": None,
        "transformers.js_config": {"dtype": "q4"},
        "initializer_range": 0.041666666666666664,
    },
    "transformers 4 as a dictionary": {
        "tf_legacy_loss": False,
        "torchscript": False,
        "use_bfloat16": False,
        "pruned_heads": {},
        "is_decoder": False,
        "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": None,
        "typical_p": 1.0,
        "suppress_tokens": None,
        "finetuning_task": None,
        "id2label": {"0": "x"},
    },
    "a trainer": {
        "auto_map": None,
        "gradient_checkpointing": True,
        "model_max_length": 8192,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 4096,
        "attn_implementation": "flash_attention_2",
        "_flash_attn_2_enabled": True,
        "neftune_noise_alpha": 5.0,
        "unsloth_version": "2025.3",
        "use_cache": False,
        "keys_to_ignore_at_inference": ["past_key_values"],
        "trl_version": "0.9",
    },
    "a mixture of experts that is none": {
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "num_experts": 0,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "num_local_experts": 0,
    },
    "multipliers of one": {
        "residual_multiplier": 1.0,
        "embedding_multiplier": 1,
        "logits_scaling": 1.0,
        "partial_rotary_factor": 1.0,
        "pretraining_tp": 1,
    },
    "null says not set": {
        "quantization_config": None,
        "attn_logit_softcapping": None,
        "vision_config": None,
        "no_rope_layers": None,
        "mlp_bias": None,
        "hidden_dropout_prob": None,
        "rope_theta": None,
    },
    "dropout of nothing": {"attention_dropout": 0.0, "resid_pdrop": 0, "classifier_dropout": 0.1},
    "a window that is off": {
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 1,
    },
    "a window that no layer has": {
        "use_sliding_window": True,
        "sliding_window": 4096,
        "max_window_layers": 2,
    },
    "a window of null": {
        "use_sliding_window": True,
        "sliding_window": None,
        "max_window_layers": 0,
    },
    "layers that all see everything": {
        "use_sliding_window": True,
        "sliding_window": 4096,
        "max_window_layers": 1,
        "layer_types": ["full_attention"] * 2,
    },
    "no rescaling": {
        "rope_scaling": {},
        "rope_parameters": {"rope_type": "default", "factor": None},
    },
    "dtype as torch prints it": {"torch_dtype": "torch.float32"},
}


@pytest.mark.parametrize("kind", list(HARMLESS))
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_fields_that_do_nothing_are_read_over(family, kind):
    assert read(family, **HARMLESS[kind]) == read(family)


def test_switches_that_say_what_the_family_is():
    assert read("qwen2", attention_bias=True, qkv_bias=True, qk_norm=False).qkv_bias
    assert read("qwen3", attention_bias=False, use_qk_norm=True).qk_norm
    assert read("llama", mlp_bias=False, attention_bias=False, qkv_bias=False) == read("llama")


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (YARN, YarnRopeScaling(4.0, 32768)),
        (
            {"type": "yarn", **{k: v for k, v in YARN.items() if k != "rope_type"}},
            YarnRopeScaling(4.0, 32768),
        ),
        (
            {**YARN, "type": "yarn", "beta_fast": None, "attention_factor": None},
            YarnRopeScaling(4.0, 32768),
        ),
        ({**YARN, "attention_factor": 1.0}, YarnRopeScaling(4.0, 32768, 1.0)),
        (
            {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": False},
            YarnRopeScaling(4.0, 32768, None, 16.0, 2.0, False),
        ),
        ({**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, YarnRopeScaling(4.0, 32768, 1.0)),
        ({**YARN, "mscale": 0.7}, YarnRopeScaling(4.0, 32768)),
        (
            {**YARN, "attention_factor": 0.9, "mscale": 2.0, "mscale_all_dim": 1.0},
            YarnRopeScaling(4.0, 32768, 0.9),
        ),
        ({**YARN, "finetuned": True, "extrapolation_factor": 1}, YarnRopeScaling(4.0, 32768)),
        ({**YARN, "factor": None}, YarnRopeScaling(2.0, 32768)),
        ({"rope_type": "yarn", "factor": 4.0}, YarnRopeScaling(4.0, 65536)),
        ({"rope_type": "linear", "factor": 2}, LinearRopeScaling(2.0)),
        ({"type": "linear", "factor": 8.0}, LinearRopeScaling(8.0)),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            Llama3RopeScaling(8.0, 1.0, 4.0, 65536),
        ),
    ],
)
def test_rescalings(scaling, expected):
    old = read(max_position_embeddings=65536, rope_theta=1e6, rope_scaling=scaling)
    new = read(max_position_embeddings=65536, rope_parameters={**scaling, "rope_theta": 1e6})
    assert old.rope_scaling == expected
    assert new == old
    assert config_from_json(config_to_json(old, "float32")) == old


def test_yarn_lengthens_what_a_model_is_made_for():
    """Qwen2.5 tells its users to add the rescaling and nothing else."""
    assert read(max_position_embeddings=32768, rope_scaling=YARN).max_positions == 131072
    assert read(max_position_embeddings=131072, rope_scaling=YARN).max_positions == 131072
    assert read(max_position_embeddings=262144, rope_scaling=YARN).max_positions == 262144
    linear = {"rope_type": "linear", "factor": 4.0}
    assert read(max_position_embeddings=32768, rope_scaling=linear).max_positions == 32768
    huge = config_from_json(config_to_json(read(rope_scaling={**YARN, "factor": 1e30}), "float32"))
    assert huge.max_positions == 2**31 - 1


def test_original_positions_may_stand_beside_the_rescaling():
    yarn = {"rope_type": "yarn", "factor": 4.0}
    config = read(original_max_position_embeddings=8192, rope_scaling=yarn)
    assert config.rope_scaling == YarnRopeScaling(4.0, 8192)
    assert read(original_max_position_embeddings=8192) == read()


def test_deepseek_r1_0528_qwen3_8b_as_published():
    """transformers does not read attn_factor: so neither do we, and we say so."""
    published = {**YARN, "attn_factor": 0.8782488562869419}
    with pytest.warns(UserWarning, match=r"rope_scaling\.attn_factor.*'attention_factor': 1\b"):
        config = read("qwen3", rope_scaling=published)
    assert config.rope_scaling == YarnRopeScaling(4.0, 32768)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read("qwen3", rope_scaling={**published, "attention_factor": 1.0})
        read("qwen3", rope_scaling={**YARN, "attn_factor": 1.0})


def test_unknown_rescalings_are_named():
    for kind in ("dynamic", "longrope", "su", "mrope", "proportional", 3, ["yarn"]):
        with pytest.raises(
            ValueError, match=r"rope_scaling\.rope_type.*'linear', 'llama3', 'yarn'"
        ):
            read(rope_scaling={"rope_type": kind, "factor": 2.0})
