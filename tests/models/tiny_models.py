"""Configs and parameters of models small enough to run many of."""

import jax
import jax.numpy as jnp
import numpy as np

from models import Llama3RopeScaling, ModelConfig, abstract
from models.parameters import Params

LLAMA3 = Llama3RopeScaling(
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)


def tiny_config(family: str = "qwen3", **changes) -> ModelConfig:
    """Two layers, grouped queries, heads that don't add up to the hidden size, 64 tokens."""
    fields = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 12,
        "rope_theta": 1e5,
        "rope_scaling": LLAMA3 if family == "llama" else None,
        "tie_embeddings": family == "qwen2",
        "qkv_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
    }
    return ModelConfig(family=family, **(fields | changes))


def tiny_params(config: ModelConfig, seed: int = 0, dtype: str = "float32") -> Params:
    """Parameters from numpy, none of them at its neutral value, so that each one matters."""
    random = np.random.RandomState(seed)

    def array(path, struct: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        noise = random.standard_normal(struct.shape)
        if name.endswith("norm"):
            return jnp.asarray(1 + 0.2 * noise, dtype)
        return jnp.asarray(0.3 * noise, dtype)

    return jax.tree.map_with_path(array, abstract(config.replace(mesh=None)))
