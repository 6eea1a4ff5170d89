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
from models.huggingface.fields import Fields
from models.huggingface.rope_fields import read_rope, write_rope
from models.huggingface.tables import DEFAULTS, FAMILIES, KNOWN, ON_IN_FAMILY, PINNED
from models.rope import RopeScaling, YarnRopeScaling

# Special tokens belong to generation, not to the model, but readers look for them in config.json.
TOKEN_ID_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Sizes by our names, and by those of the file.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
}


def config_from_json(values: Any, source: str = "config.json") -> ModelConfig:
    """The `ModelConfig` that a parsed `config.json` describes.

    Args:
      values: the parsed file.
      source: what errors call it.

    Raises:
      ValueError: a field is missing, malformed, or means something that is not supported; names
        the file, the field, its value and what is supported.
    """
    family = Fields(values, source).choice("model_type", FAMILIES)
    fields = Fields(DEFAULTS | FAMILIES[family] | values, source)
    for name in values:
        if name not in KNOWN and fields.given(name):
            raise fields.error(name, "it is not supported, and ignoring it could change the model")
    for name, allowed in PINNED.items():
        fields.pin(name, allowed)
    for name, only in ON_IN_FAMILY.items():
        fields.pin(name, (family == only,))

    sizes: dict[str, Any] = {ours: fields.integer(name) for ours, name in _SIZES.items()}
    heads = "num_key_value_heads" if fields.given("num_key_value_heads") else "num_attention_heads"
    _check_attention(fields, sizes["num_layers"])
    try:
        theta, scaling = read_rope(fields, sizes["max_positions"])
        sizes["max_positions"] = _stretched(sizes["max_positions"], scaling)
        return ModelConfig(
            family=family,
            **sizes,
            num_kv_heads=fields.integer(heads),
            head_dim=_head_dim(fields, sizes["num_heads"]),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=fields.number("rms_norm_eps"),
            tie_embeddings=fields.boolean("tie_word_embeddings"),
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
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


def _head_dim(fields: Fields, num_heads: int) -> int:
    if fields.given("head_dim"):
        return fields.integer("head_dim")
    hidden_size = fields.integer("hidden_size")
    if hidden_size % num_heads:
        raise fields.error("hidden_size", f"it must be a multiple of the {num_heads} heads")
    return hidden_size // num_heads


def _dtype(fields: Fields) -> str:
    choices = [*DTYPES, *(f"torch.{name}" for name in DTYPES)]  # as some writers have it
    given = [name for name in ("dtype", "torch_dtype") if fields.given(name)]
    found = {fields.choice(name, choices).removeprefix("torch.") for name in given}
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
    if not windowed or fields.values.get("sliding_window", True) is None:
        return
    # The first `max_window_layers` have none.
    whole = fields.values.get("max_window_layers")
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
      token_ids: what holds the values of `TOKEN_ID_FIELDS`. Absent ones are written as null, since
        a class of transformers would otherwise fill in ids of its own.

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
        "architectures": [f"{c.family.capitalize()}ForCausalLM"],
        "model_type": c.family,
        **{name: getattr(c, ours) for ours, name in _SIZES.items()},
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tie_embeddings,
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
