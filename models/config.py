"""What a decoder-only language model looks like: one frozen, hashable record."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from jax.sharding import Mesh

from models.checks import Count, above, check, one_of
from models.dtypes import dtype_name
from models.rope import RopeScaling, YarnRopeScaling
from models.sharding import DEFAULT_RULES, Rules

REMAT_POLICIES = ("none", "dots", "full")
ATTENTION_KERNELS = ("auto", "xla", "cudnn", "splash")
LORA_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685): a target computes x W + (alpha / rank) x A B.

    A and B train, and everything else is frozen. OPSD (arXiv 2601.18734) has rank 64 and alpha 128
    on all linear layers.

    Attributes:
      rank: columns of A and rows of B.
      alpha: the adapters' weight, times `rank`.
      targets: which matrices of every layer have adapters, some of `LORA_TARGETS`.
    """

    rank: Count
    alpha: Annotated[float, above(0)]
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self):
        check(self, "lora")
        if not self.targets or set(self.targets) - set(LORA_TARGETS):
            raise ValueError(
                f"lora.targets={self.targets!r}: name at least one matrix, out of {LORA_TARGETS}."
            )

    @property
    def scale(self) -> float:
        """What x A B is multiplied by."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A dense pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.

    The families differ in two switches: Qwen3 normalizes queries and keys per head (`qk_norm`),
    Qwen2 adds biases to the query, key and value projections (`qkv_bias`), and Llama has neither.

    Attributes:
      family: `qwen3`, `qwen2` or `llama`; decides the names in a Hugging Face directory.
      vocab_size: rows of the embedding table, padding included.
      hidden_size: width of the residual stream.
      intermediate_size: width of the MLP.
      num_layers: decoder layers.
      num_heads: query heads.
      num_kv_heads: key and value heads, each shared by several query heads.
      head_dim: size of one attention head; need not be `hidden_size / num_heads`.
      rope_theta: base of the rotary frequencies.
      norm_eps: added to the mean square before a norm divides by its root.
      tie_embeddings: whether the head is the embedding table.
      qkv_bias: whether query, key and value projections have a bias.
      qk_norm: whether queries and keys are normalized per head.
      max_positions: longest sequence the checkpoint was made for, in tokens.
      rope_scaling: how rotary positions are stretched beyond the context that the model was
        pretrained with, if they are.
      dtype: compute dtype of activations and matrix products, by name; `jnp.bfloat16` and its like
        become their names. Norms, softmax and logits are float32 whatever it is; parameters keep
        the dtype they were loaded in.
      remat: what the training forward pass recomputes per layer: `none`, `dots` (keeps matrix
        products without a batch dimension) or `full`.
      attention: kernel of the training forward pass: `auto`, `xla`, `cudnn` (GPU) or `splash`
        (TPU); see `models.attention.attention`.
      lora: adapters that the layers have, and which alone are trained. Without it any that the
        parameters hold are ignored, so that `replace(lora=None)` is the base of the same tree.
      mesh, rules: where the arrays live. With a mesh, activations are constrained to `rules`.

    Raises:
      ValueError: sizes do not fit together, or a name is not one of those above.

    Example:
      >>> config = ModelConfig(
      ...     family="qwen3", vocab_size=128, hidden_size=32, intermediate_size=64, num_layers=2,
      ...     num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=True,
      ... )
      >>> config.replace(dtype="bfloat16").dtype
      'bfloat16'
    """

    family: str
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_layers: Count
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    rope_theta: Annotated[float, above(0)] = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: Annotated[float, above(0)] = 1e-6
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: Count = 32768
    dtype: str = "float32"
    remat: Annotated[str, one_of(*REMAT_POLICIES)] = "dots"
    attention: Annotated[str, one_of(*ATTENTION_KERNELS)] = "auto"
    lora: LoraConfig | None = None
    mesh: Mesh | None = None
    rules: Rules = DEFAULT_RULES

    def __post_init__(self):
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        check(self)
        if isinstance(self.rope_scaling, YarnRopeScaling) and self.rope_theta <= 1:
            raise ValueError(f"rope_theta={self.rope_theta} must exceed 1 for rope type 'yarn'.")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even for rotary positions.")
        if self.lora is not None:
            self._check_rank(self.lora)

    def _check_rank(self, lora: LoraConfig) -> None:
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        widths = {"q": queries, "k": keys, "v": keys, "o": queries}
        for name in lora.targets:
            width = widths.get(name, self.intermediate_size)
            if lora.rank > min(width, self.hidden_size):
                raise ValueError(
                    f"lora.rank={lora.rank} with {name!r} among lora.targets: its matrix joins "
                    f"{self.hidden_size} and {width} numbers. Choose a rank of at most "
                    f"{min(width, self.hidden_size)}, or leave {name!r} out."
                )

    def replace(self, **changes) -> ModelConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
