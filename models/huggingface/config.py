"""Hugging Face's `config.json` as a `ModelConfig`, and back.

Every field is either mapped, pinned to the values that this code computes the same thing for, or
listed as irrelevant to the forward pass. Any other field raises: a field that nothing reads is how
a port goes wrong in silence. Two dialects are read, `rope_theta` + `rope_scaling` + `torch_dtype`
(transformers 4) and `rope_parameters` + `dtype` (transformers 5); both are written.
"""

from __future__ import annotations

import math
from typing import Any

from models.config import Llama3RopeScaling, ModelConfig

DTYPES = ("float32", "bfloat16", "float16")
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

# Fields that change what is computed: the values with which it is what this code computes.
_PINNED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_dropout": (0, None),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (None,),
    "embd_pdrop": (0,),
    "hidden_act": ("silu",),
    "hidden_dropout": (0,),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1, None),
    "per_layer_config": (None,),
    "pretraining_tp": (1, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "resid_pdrop": (0,),
    "tie_encoder_decoder": (False,),
    "torchscript": (False,),
    "use_bfloat16": (False,),
    "use_mrope": (False, None),
    "use_sliding_window": (False, None),
}
_ATTENTION_BIAS = {"llama": (False,), "qwen2": (True,), "qwen3": (False,)}

# Provenance, bookkeeping, outputs we don't return. `sliding_window` and `max_window_layers` only act
# with `use_sliding_window`, which is pinned.
_BOOKKEEPING = """
    _attn_implementation _attn_implementation_autoset _commit_hash _from_model_config _name_or_path
    architectures finetuning_task id2label initializer_range is_decoder label2id max_window_layers
    name_or_path num_labels output_attentions output_hidden_states prefix problem_type return_dict
    sliding_window task_specific_params tokenizer_class transformers_version unsloth_fixed
    unsloth_version use_cache use_return_dict
""".split()  # noqa: SIM905
# Defaults of generation, which old configs hold.
_GENERATION = """
    bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty
    do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty
    max_length max_new_tokens min_length no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_scores pad_token_id remove_invalid_values repetition_penalty
    return_dict_in_generate sep_token_id suppress_tokens temperature top_k top_p typical_p
""".split()  # noqa: SIM905
_MAPPED = """
    attention_bias dtype head_dim hidden_size intermediate_size layer_types max_position_embeddings
    model_type num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps
    rope_parameters rope_scaling rope_theta tie_word_embeddings torch_dtype vocab_size
""".split()  # noqa: SIM905
_KNOWN = frozenset([*_BOOKKEEPING, *_GENERATION, *_MAPPED, *_PINNED])
_LLAMA3_FIELDS = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)
_REQUIRED = object()


class _Fields:
    """The fields of one JSON object, with errors that say which file and field they are about."""

    def __init__(self, values: Any, source: str, prefix: str = ""):
        if not isinstance(values, dict):
            raise ValueError(
                f"{source}: {prefix.rstrip('.') or 'the file'} must hold a JSON object, "
                f"not {values!r:.200}."
            )
        self.values, self.source, self.prefix = values, source, prefix

    def error(self, name: str, supported: str) -> ValueError:
        value = f" is {self.values[name]!r:.200}" if name in self.values else " is missing"
        return ValueError(f"{self.source}: field {self.prefix + name!r}{value}; {supported}.")

    def get(self, name: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is _REQUIRED:
            raise self.error(name, "it is required")
        return value

    def integer(self, name: str, default: Any = _REQUIRED) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise self.error(name, "it must be a positive integer below 2^31")
        return value

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, "it must be a positive number")
        if not 0 < value < 1e300 or not math.isfinite(value):
            raise self.error(name, "it must be a positive number")
        return float(value)

    def boolean(self, name: str, default: Any = _REQUIRED) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "it must be true or false")
        return value

    def pin(self, name: str, values: tuple[Any, ...]) -> None:
        if name in self.values and not any(_same(self.values[name], v) for v in values):
            raise self.error(name, f"supported is {' or '.join(repr(v) for v in values)}")


def _same(value: Any, other: Any) -> bool:
    # JSON's 0 and 0.0 mean the same; false and 0 do not.
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def config_from_json(values: Any, source: str = "config.json") -> ModelConfig:
    """The `ModelConfig` that a parsed `config.json` describes.

    Args:
      values: the parsed file.
      source: what errors call it.

    Raises:
      ValueError: a field is missing, malformed, or means something that is not supported; names
        the file, the field, its value and what is supported.
    """
    fields = _Fields(values, source)
    family = fields.get("model_type", _REQUIRED)
    if not isinstance(family, str) or family not in _ARCHITECTURES:
        raise fields.error("model_type", f"supported are {', '.join(map(repr, _ARCHITECTURES))}")
    for name in values:
        if name not in _KNOWN:
            raise fields.error(name, "it is not supported, and ignoring it could change the model")
    for name, allowed in _PINNED.items():
        fields.pin(name, allowed)
    fields.pin("attention_bias", _ATTENTION_BIAS[family])

    num_layers = fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    theta, scaling = _rope(fields)
    _check_layer_types(fields, num_layers)
    try:
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
            max_positions=fields.integer("max_position_embeddings", _MAX_POSITIONS[family]),
            dtype=_dtype(fields),
        )
    except ValueError as error:
        message = str(error)
        raise error if message.startswith(source) else ValueError(f"{source}: {message}") from None


def _num_kv_heads(fields: _Fields, family: str, num_heads: int) -> int:
    if fields.get("num_key_value_heads", _NUM_KV_HEADS[family]) is None:
        return num_heads
    return fields.integer("num_key_value_heads", _NUM_KV_HEADS[family])


def _head_dim(fields: _Fields, family: str, num_heads: int) -> int:
    if fields.get("head_dim", _HEAD_DIM[family]) is not None:
        return fields.integer("head_dim", _HEAD_DIM[family])
    hidden_size = fields.integer("hidden_size")
    if hidden_size % num_heads:
        raise fields.error("hidden_size", f"it must be a multiple of the {num_heads} heads")
    return hidden_size // num_heads


def _dtype(fields: _Fields) -> str:
    found = {}
    for name in ("dtype", "torch_dtype"):
        value = fields.get(name, None)
        if value is not None:
            if value not in DTYPES:
                raise fields.error(name, f"supported are {', '.join(map(repr, DTYPES))}")
            found[value] = name
    if len(found) > 1:
        raise fields.error("torch_dtype", "it contradicts 'dtype'; remove one of them")
    return next(iter(found), "float32")


def _check_layer_types(fields: _Fields, num_layers: int) -> None:
    types = fields.get("layer_types", None)
    if types is None:
        return
    if not isinstance(types, list) or any(t != "full_attention" for t in types):
        raise fields.error("layer_types", "supported is 'full_attention' in every layer")
    if len(types) != num_layers:
        raise fields.error("layer_types", f"num_hidden_layers={num_layers} asks for as many")


def _rope(fields: _Fields) -> tuple[float, Llama3RopeScaling | None]:
    """The base and the rescaling of rotary positions, from whichever dialect is present."""
    thetas, scalings = {}, {}
    if "rope_theta" in fields.values:
        thetas["rope_theta"] = fields.number("rope_theta")
    for name in ("rope_parameters", "rope_scaling"):
        if fields.get(name, None) is None:
            continue
        inner = _Fields(fields.values[name], fields.source, f"{name}.")
        scalings[name] = _rope_scaling(inner)
        if "rope_theta" in inner.values:
            thetas[f"{name}.rope_theta"] = inner.number("rope_theta")
    for found in (thetas, scalings):
        if len(set(found.values())) > 1:
            raise ValueError(
                f"{fields.source}: fields {', '.join(map(repr, found))} contradict each other: "
                f"{', '.join(map(str, found.values()))}; keep one dialect."
            )
    return next(iter(thetas.values()), 10000.0), next(iter(scalings.values()), None)


def _rope_scaling(fields: _Fields) -> Llama3RopeScaling | None:
    kind = "rope_type" if "rope_type" in fields.values else "type"
    rope_type = fields.get(kind, "default")
    if rope_type not in ("default", "llama3"):
        raise fields.error(kind, "supported are 'default' and 'llama3'")
    if "type" in fields.values and fields.values["type"] != rope_type:
        raise fields.error("type", f"it contradicts rope_type={rope_type!r}")
    fields.pin("partial_rotary_factor", _PINNED["partial_rotary_factor"])
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    if rope_type == "llama3":
        known.update(_LLAMA3_FIELDS)
    for name in fields.values:
        if name not in known:
            raise fields.error(name, f"it is not a field of rope type {rope_type!r}")
    if rope_type == "default":
        return None
    scaling = Llama3RopeScaling(
        factor=fields.number("factor"),
        low_freq_factor=fields.number("low_freq_factor"),
        high_freq_factor=fields.number("high_freq_factor"),
        original_max_position_embeddings=fields.integer("original_max_position_embeddings"),
    )
    if scaling.factor < 1:
        raise fields.error("factor", "it must be at least 1")
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise fields.error("high_freq_factor", "it must exceed low_freq_factor")
    return scaling


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
    if c.family not in _ARCHITECTURES:
        raise ValueError(
            f"family={c.family!r}; supported are {', '.join(map(repr, _ARCHITECTURES))}."
        )
    if (c.qkv_bias, c.qk_norm) != (c.family == "qwen2", c.family == "qwen3"):
        raise ValueError(
            f"family={c.family!r} with qkv_bias={c.qkv_bias} and qk_norm={c.qk_norm} has no "
            "config.json: qkv_bias belongs to 'qwen2' and qk_norm to 'qwen3'."
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; supported are {', '.join(map(repr, DTYPES))}.")
    rope: dict[str, Any] = {"rope_type": "default"}
    if c.rope_scaling is not None:
        rope = {"rope_type": "llama3"}
        rope |= {name: getattr(c.rope_scaling, name) for name in _LLAMA3_FIELDS}
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
