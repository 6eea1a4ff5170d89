"""Hugging Face's `config.json` as a `ModelConfig`, and back.

Every field is either mapped, pinned to the values that this code computes the same thing for, or
known to do nothing: `models.huggingface.tables` lists them. Two dialects are read, `rope_theta` +
`rope_scaling` + `torch_dtype` (transformers 4) and `rope_parameters` + `dtype` (transformers 5);
both are written.
"""

from __future__ import annotations

from typing import Any

from models.config import ModelConfig
from models.dtypes import DTYPES, dtype_name
from models.huggingface.fields import REQUIRED, Fields
from models.huggingface.rope_fields import read_rope, write_rope
from models.huggingface.tables import FAMILIES, KNOWN, PINNED, PINNED_BY_FAMILY
from models.rope import RopeScaling, YarnRopeScaling

# Special tokens belong to generation, not to the model, but readers look for them in config.json.
TOKEN_ID_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What transformers assumes where the field is absent.
_NUM_KV_HEADS = {"llama": None, "qwen2": 32, "qwen3": 32}
_HEAD_DIM = {"llama": None, "qwen2": None, "qwen3": 128}
_MAX_POSITIONS = {"llama": 2048, "qwen2": 32768, "qwen3": 32768}


def config_from_json(values: Any, source: str = "config.json") -> ModelConfig:
    """The `ModelConfig` that a parsed `config.json` describes.

    Args:
      values: the parsed file.
      source: what errors call it.

    Raises:
      ValueError: a field is missing, malformed, or means something that is not supported; names
        the file, the field, its value and what is supported.
    """
    fields = Fields(values, source)
    family = fields.get("model_type", REQUIRED)
    if not isinstance(family, str) or family not in FAMILIES:
        raise fields.error("model_type", f"supported are {', '.join(map(repr, FAMILIES))}")
    for name in values:
        if name not in KNOWN and fields.given(name):
            raise fields.error(name, "it is not supported, and ignoring it could change the model")
    for name, allowed in PINNED.items():
        fields.pin(name, allowed)
    for name, by_family in PINNED_BY_FAMILY.items():
        fields.pin(name, (by_family[FAMILIES.index(family)],))

    num_layers = fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    max_positions = fields.integer("max_position_embeddings", _MAX_POSITIONS[family])
    _check_attention(fields, num_layers)
    try:
        theta, scaling = read_rope(fields, max_positions)
        return ModelConfig(
            family=family,
            vocab_size=fields.integer("vocab_size"),
            hidden_size=fields.integer("hidden_size"),
            intermediate_size=fields.integer("intermediate_size"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=_num_kv_heads(fields, family, num_heads),
            head_dim=_head_dim(fields, family, num_heads),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=fields.number("rms_norm_eps", 1e-6),
            tie_embeddings=fields.boolean("tie_word_embeddings", False),
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            max_positions=_stretched(max_positions, scaling),
            dtype=_dtype(fields),
        )
    except ValueError as error:
        message = str(error)
        raise error if message.startswith(source) else ValueError(f"{source}: {message}") from None


def _stretched(max_positions: int, scaling: RopeScaling | None) -> int:
    """The positions that there are: who follows Qwen2.5's recipe for YaRN leaves the old number."""
    if not isinstance(scaling, YarnRopeScaling):
        return max_positions
    longest = scaling.factor * scaling.original_max_position_embeddings
    return min(max(max_positions, round(longest)), 2**31 - 1)


def _num_kv_heads(fields: Fields, family: str, num_heads: int) -> int:
    if fields.get("num_key_value_heads", _NUM_KV_HEADS[family]) is None:
        return num_heads
    return fields.integer("num_key_value_heads", _NUM_KV_HEADS[family])


def _head_dim(fields: Fields, family: str, num_heads: int) -> int:
    if fields.get("head_dim", _HEAD_DIM[family]) is not None:
        return fields.integer("head_dim", _HEAD_DIM[family])
    hidden_size = fields.integer("hidden_size")
    if hidden_size % num_heads:
        raise fields.error("hidden_size", f"it must be a multiple of the {num_heads} heads")
    return hidden_size // num_heads


def _dtype(fields: Fields) -> str:
    found = {}
    for name in ("dtype", "torch_dtype"):
        value = fields.get(name)
        if value is not None:
            # Some writers say torch.bfloat16.
            plain = value.removeprefix("torch.") if isinstance(value, str) else value
            if plain not in DTYPES:
                raise fields.error(name, f"supported are {', '.join(map(repr, DTYPES))}")
            found[plain] = name
    if len(found) > 1:
        raise fields.error("torch_dtype", "it contradicts 'dtype'; remove one of them")
    return next(iter(found), "float32")


def _check_attention(fields: Fields, num_layers: int) -> None:
    """Raises unless every layer attends to the whole text."""
    if fields.given("layer_types"):
        types = fields.values["layer_types"]
        if not isinstance(types, list) or any(t != "full_attention" for t in types):
            raise fields.error("layer_types", "supported is 'full_attention' in every layer")
        if len(types) != num_layers:
            raise fields.error("layer_types", f"num_hidden_layers={num_layers} asks for as many")
        return
    windowed = fields.given("use_sliding_window") and fields.boolean("use_sliding_window")
    # An absent `sliding_window` has a default; null says that there is none.
    if not windowed or fields.get("sliding_window", True) is None:
        return
    # The first `max_window_layers` have none.
    whole = fields.get("max_window_layers")
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < num_layers:
        raise fields.error(
            "use_sliding_window",
            f"sliding windows are not supported, and with max_window_layers={whole!r:.200} not all "
            f"of the {num_layers} layers go without",
        )


def config_to_json(
    config: ModelConfig, dtype: str, token_ids: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What to write as `config.json`, in both dialects, so that transformers 4 and 5 read it.

    Args:
      dtype: what the arrays are stored in.
      token_ids: values of `TOKEN_ID_FIELDS`. Absent ones are written as null, since a class of
        transformers would otherwise fill in ids of its own.

    Raises:
      ValueError: no family of transformers has this combination of switches.
    """
    c = config
    if c.family not in FAMILIES:
        raise ValueError(f"family={c.family!r}; supported are {', '.join(map(repr, FAMILIES))}.")
    if (c.qkv_bias, c.qk_norm) != (c.family == "qwen2", c.family == "qwen3"):
        raise ValueError(
            f"family={c.family!r} with qkv_bias={c.qkv_bias} and qk_norm={c.qk_norm} has no "
            "config.json: qkv_bias belongs to 'qwen2' and qk_norm to 'qwen3'."
        )
    dtype = dtype_name(dtype)
    rope = write_rope(c.rope_scaling)
    values: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[c.family]],
        "model_type": c.family,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tie_embeddings,
        "max_position_embeddings": c.max_positions,
        "attention_dropout": 0.0,
        "rope_theta": c.rope_theta,
        "rope_scaling": None if c.rope_scaling is None else rope,
        "rope_parameters": {**rope, "rope_theta": c.rope_theta},
        "torch_dtype": dtype,
        "dtype": dtype,
        "use_cache": True,
    }
    if c.family != "qwen2":
        values["attention_bias"] = False
    if c.family == "llama":
        values["mlp_bias"] = False
    else:
        values["use_sliding_window"] = False
    return values | {name: (token_ids or {}).get(name) for name in TOKEN_ID_FIELDS}
