"""config.json of the released Qwen3 models that the presets name, without a weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# hidden, MLP, layers, heads; all have 8 key-value heads of 128 and 151,936 ids.
SIZES = {
    "Qwen3-1.7B": (2048, 6144, 28, 16, True),
    "Qwen3-4B": (2560, 9728, 36, 32, True),
    "Qwen3-4B-Instruct-2507": (2560, 9728, 36, 32, True),
    "Qwen3-8B": (4096, 12288, 36, 32, False),
    "Qwen3-32B": (5120, 25600, 64, 64, False),
}


def write_model(directory: Path, name: str) -> Path:
    """DIRECTORY/NAME with config.json, and the embedded tokenizer in place of Qwen3's."""
    hidden, mlp, layers, heads, tied = SIZES[name]
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000 if name.endswith("2507") else 1_000_000,
        "max_position_embeddings": 262_144 if name.endswith("2507") else 40_960,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": 151_936,
    }
    out = directory / name
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config))
    for file in (ROOT / "models" / "embedded" / "tokenizer").iterdir():
        shutil.copy(file, out)
    return out
