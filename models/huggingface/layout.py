"""Names and layouts of the tensors in a Hugging Face checkpoint, next to our parameters.

PyTorch's linear layers hold [out, in] matrices, one tensor per layer. Ours hold [in, out] with
heads as an axis of their own, and every array below `layers` is stacked over layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from models.config import ModelConfig

Index = tuple[slice, ...]  # of one block, in every axis


@dataclasses.dataclass(frozen=True)
class TensorLayout:
    """How one of our arrays (of one layer, if it is stacked) lies in a checkpoint tensor.

    Attributes:
      name: the tensor's name, with `{layer}` where the layer's number goes.
      groups: our axes, in groups that are one axis of the tensor each.
      transposed: whether the tensor's axes are in the opposite order.
    """

    name: str
    groups: tuple[tuple[int, ...], ...]
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of our array."""
        return tuple(size for group in self.groups for size in group)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of the checkpoint's tensor."""
        sizes = tuple(math.prod(group) for group in self.groups)
        return sizes[::-1] if self.transposed else sizes

    def tensor_index(self, index: Index) -> Index:
        """The part of the tensor that holds `index` of our array.

        Only the first axis of a group may be split, as it may by the declarations: the axis
        inside a head has no logical name.
        """
        parts, axis = [], 0
        for group in self.groups:
            start, stop, _ = index[axis].indices(group[0])
            inner = math.prod(group[1:])
            parts.append(slice(start * inner, stop * inner))
            axis += len(group)
        return tuple(parts[::-1] if self.transposed else parts)

    def from_tensor(self, block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A block of the tensor in our axes; `shape` is the block's shape in our array."""
        return (block.T if self.transposed else block).reshape(shape)

    def to_tensor(self, array: np.ndarray) -> np.ndarray:
        """Our array as the checkpoint's tensor, contiguous."""
        matrix = array.reshape([math.prod(group) for group in self.groups])
        return np.ascontiguousarray(matrix.T if self.transposed else matrix)


def tensor_layouts(config: ModelConfig) -> dict[str, TensorLayout]:
    """The layout of every parameter, by its path, such as `layers/q`."""
    c = config
    q, kv = (c.num_heads, c.head_dim), (c.num_kv_heads, c.head_dim)
    hidden, mlp, vocab = (c.hidden_size,), (c.intermediate_size,), (c.vocab_size,)
    linears: dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
        "self_attn": {"q": (hidden, q), "k": (hidden, kv), "v": (hidden, kv), "o": (q, hidden)},
        "mlp": {"gate": (hidden, mlp), "up": (hidden, mlp), "down": (mlp, hidden)},
    }
    vectors: dict[str, tuple[str, tuple[int, ...]]] = {
        "attn_norm": ("input_layernorm.weight", hidden),
        "mlp_norm": ("post_attention_layernorm.weight", hidden),
    }
    for key in "qkv" if c.qkv_bias else "":
        vectors[f"{key}_bias"] = (f"self_attn.{key}_proj.bias", linears["self_attn"][key][1])
    for key in "qk" if c.qk_norm else "":
        vectors[f"{key}_norm"] = (f"self_attn.{key}_norm.weight", (c.head_dim,))
    prefix = "model.layers.{layer}."
    layouts = {"embed": TensorLayout("model.embed_tokens.weight", (vocab, hidden), False)}
    for part, matrices in linears.items():
        for key, groups in matrices.items():
            name = f"{prefix}{part}.{key}_proj.weight"
            layouts[f"layers/{key}"] = TensorLayout(name, groups, True)
    for key, (name, axes) in vectors.items():
        layouts[f"layers/{key}"] = TensorLayout(prefix + name, (axes,), False)
    layouts["final_norm"] = TensorLayout("model.norm.weight", (hidden,), False)
    if not c.tie_embeddings:
        layouts["head"] = TensorLayout("lm_head.weight", (vocab, hidden), False)
    return layouts


def tensors(config: ModelConfig) -> Iterator[tuple[str, TensorLayout, str, int | None]]:
    """Name and layout of every tensor of a checkpoint, and the path and layer of its parameter.

    The layer is None outside of the layers, which come last, one by one. An iterator, since a
    malformed config can ask for more layers than fit in memory.
    """
    layouts = tensor_layouts(config).items()
    for path, layout in layouts:
        if not path.startswith("layers/"):
            yield layout.name, layout, path, None
    for layer in range(config.num_layers):
        for path, layout in layouts:
            if path.startswith("layers/"):
                yield layout.name.format(layer=layer), layout, path, layer


def tensor_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a checkpoint, in the order of `tensors`."""
    return ((name, layout.tensor_shape) for name, layout, _, _ in tensors(config))
