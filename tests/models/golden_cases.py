"""The models that are compared with transformers: configs as on disk, weights from a seed.

Nothing but `RandomState`, whose stream numpy froze for good, decides weights and prompts, so the
stored goldens hold only what transformers made of them.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from models import load_config
from models.huggingface.layout import tensor_shapes

GOLDENS = Path(__file__).parent / "goldens"
NEW_TOKENS = 64
_COMMON = {"vocab_size": 96, "num_hidden_layers": 2, "intermediate_size": 48, "hidden_size": 32}
_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# The dialects of transformers 4 and 5 take turns.
CONFIGS = {
    "qwen3_grouped": {
        **_COMMON, "model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "rope_theta": 1e6, "rope_scaling": None, "torch_dtype": "float32",
        "attention_bias": False, "tie_word_embeddings": False,
    },
    "qwen3_one_kv_head_tied_long": {
        **_COMMON, "model_type": "qwen3", "num_attention_heads": 6, "num_key_value_heads": 1,
        "head_dim": 8, "tie_word_embeddings": True, "dtype": "float32",
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
        "layer_types": ["full_attention"] * 2,
    },
    "qwen3_ungrouped": {
        **_COMMON, "model_type": "qwen3", "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 20, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default"},
    },
    "qwen2_grouped_tied": {
        **_COMMON, "model_type": "qwen2", "num_attention_heads": 8, "num_key_value_heads": 2,
        "rope_theta": 1e6, "tie_word_embeddings": True, "use_sliding_window": False,
        "sliding_window": 4096, "max_window_layers": 1, "use_mrope": False,
    },
    "qwen2_ungrouped_long": {
        **_COMMON, "model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "dtype": "float32",
    },
    "qwen2_wide_heads": {
        **_COMMON, "model_type": "qwen2", "num_attention_heads": 3, "num_key_value_heads": 1,
        "head_dim": 14, "rope_theta": 2e5,
    },
    "llama_plain": {
        **_COMMON, "model_type": "llama", "num_attention_heads": 4, "rms_norm_eps": 1e-5,
        "pretraining_tp": 1, "tie_word_embeddings": False,
    },
    "llama3_grouped_tied_long": {
        **_COMMON, "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 1,
        "tie_word_embeddings": True, "max_position_embeddings": 2048, "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "llama3", **_LLAMA3}, "torch_dtype": "float32",
    },
    "llama3_wide_heads": {
        **_COMMON, "model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 24, "mlp_bias": False, "attention_bias": False,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, **_LLAMA3, "factor": 32.0},
    },
    "qwen3_yarn_long": {
        **_COMMON, "model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 32, "rope_theta": 1e6, "max_position_embeddings": 4096,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024,
        },
    },
    "qwen2_yarn_mscale": {
        **_COMMON, "model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 16, "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "beta_fast": 24, "beta_slow": 2,
            "original_max_position_embeddings": 32, "truncate": False, "mscale": 1.4,
            "mscale_all_dim": 0.5,
        },
    },
    "llama_linear": {
        **_COMMON, "model_type": "llama", "num_attention_heads": 4, "rope_theta": 1e4,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
}  # fmt: skip


# With seed 0 two tokens nearly tie somewhere in these continuations.
_SEEDS = {
    "qwen3_ungrouped": 1,
    "qwen2_wide_heads": 1,
    "llama3_wide_heads": 1,
    "llama_linear": 1,
}


def seed(case: str) -> int:
    return _SEEDS.get(case, 0)


def write_checkpoint(case: str, directory: Path) -> Path:
    """Writes config.json and model.safetensors; returns their directory."""
    path = directory / case
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIGS[case]))
    random = np.random.RandomState(seed(case))
    tensors = {}
    for name, shape in tensor_shapes(load_config(path)):
        noise = random.standard_normal(shape)
        if name.endswith("norm.weight"):
            tensors[name] = (1 + 0.2 * noise).astype(np.float32)
        elif name.endswith("bias"):
            tensors[name] = (0.3 * noise).astype(np.float32)
        else:
            tensors[name] = (1.2 * noise / np.sqrt(shape[-1])).astype(np.float32)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


def sequences(case: str) -> np.ndarray:
    """Token ids [B, T] to run the forward pass on; T exceeds 1024 for the long cases."""
    shape = (1, 1100) if case.endswith("long") else (2, 80)
    return np.random.RandomState(seed(case)).randint(0, 96, shape).astype(np.int32)


def compared_positions(case: str) -> np.ndarray:
    """Positions whose logits are stored: the first, the last, and some between."""
    length = sequences(case).shape[1]
    between = np.random.RandomState(seed(case)).choice(length, 14, replace=False)
    return np.unique(np.concatenate([[0, 1, length - 2, length - 1], between]))


def ragged_prompts(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [3, 12], right-padded with zeros, and their lengths [3]."""
    lengths = np.array([12, 5, 1], np.int32)
    tokens = np.random.RandomState(seed(case) + 1).randint(0, 96, (3, 12)).astype(np.int32)
    return np.where(np.arange(12) < lengths[:, None], tokens, 0), lengths
