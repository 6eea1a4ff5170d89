"""What a decoder-only language model looks like: one frozen, hashable record."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from models.sharding import DEFAULT_RULES, Rules

REMAT_POLICIES = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Llama3RopeScaling:
    """Llama 3.1's frequency-dependent RoPE interpolation (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A dense pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.

    The families differ in three switches: Qwen3 normalises queries and keys per head
    (`qk_norm`), Qwen2 adds biases to the query, key and value projections (`qkv_bias`), and
    Llama has neither, with an optional RoPE rescaling.

    Attributes:
      family: `qwen3`, `qwen2` or `llama`; decides the names in a Hugging Face directory.
      vocab_size: rows of the embedding table, padding included.
      head_dim: size of one attention head; need not be `hidden_size / num_heads`.
      max_positions: longest sequence the checkpoint was made for, in tokens.
      dtype: compute dtype of activations and matrix products. Norms, softmax and logits are
        float32 whatever it is; parameters keep the dtype they were loaded in.
      remat: what the training forward pass recomputes per layer: `none`, `dots` (keeps matrix
        products without a batch dimension) or `full`.
      mesh, rules: where the arrays live. With a mesh, activations are constrained to `rules`.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    rope_scaling: Llama3RopeScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 32768
    dtype: str = "float32"
    remat: str = "none"
    mesh: Mesh | None = None
    rules: Rules = DEFAULT_RULES

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary positions.")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat={self.remat!r} is not one of {REMAT_POLICIES}.")

    def replace(self, **changes) -> ModelConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
