"""The parameters of a model: one declaration per array, from which everything else follows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from models.config import LoraConfig, ModelConfig
from models.dtypes import dtype_name
from models.sharding import LogicalAxes, Rules, named_sharding

Params = dict[str, Any]


Start = Literal["normal", "ones", "zeros"]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One array: its shape, the logical name of every axis, and how it starts.

    Attributes:
      start: `normal` (matrices), `ones` (norm scales) or `zeros` (biases, and B of adapters).
      fan_in: the number of inputs, whose inverse is the variance of a normal start.
    """

    shape: tuple[int, ...]
    axes: LogicalAxes
    start: Start = "normal"
    fan_in: int = 1


def declare(config: ModelConfig) -> Params:
    """The tree of declarations of a model's parameters.

    Layers are stacked: every array below `layers` has a leading axis of `num_layers`. With
    `config.lora` the matrix `name` has adapters `name_lora_a` [inputs, rank] and `name_lora_b`
    [rank, outputs], with the matrix's own axes on either side.
    """
    c = config
    hidden, mlp, vocab = c.hidden_size, c.intermediate_size, c.vocab_size
    q, kv = (c.num_heads, c.head_dim), (c.num_kv_heads, c.head_dim)
    q_axes, kv_axes = ("heads", None), ("kv_heads", None)

    def matrix(shape: tuple[int, ...], axes: LogicalAxes, fan_in: int) -> Declaration:
        return Declaration(shape, axes, "normal", fan_in)

    def scale(size: int) -> Declaration:
        return Declaration((size,), (None,), "ones")

    layers = {
        "attn_norm": scale(hidden),
        "q": matrix((hidden, *q), ("embed", *q_axes), hidden),
        "k": matrix((hidden, *kv), ("embed", *kv_axes), hidden),
        "v": matrix((hidden, *kv), ("embed", *kv_axes), hidden),
        "o": matrix((*q, hidden), (*q_axes, "embed"), math.prod(q)),
        "mlp_norm": scale(hidden),
        "gate": matrix((hidden, mlp), ("embed", "mlp"), hidden),
        "up": matrix((hidden, mlp), ("embed", "mlp"), hidden),
        "down": matrix((mlp, hidden), ("mlp", "embed"), mlp),
    }
    if c.qkv_bias:
        layers["q_bias"] = Declaration(q, q_axes, "zeros")
        layers["k_bias"] = Declaration(kv, kv_axes, "zeros")
        layers["v_bias"] = Declaration(kv, kv_axes, "zeros")
    if c.qk_norm:
        layers["q_norm"] = scale(c.head_dim)
        layers["k_norm"] = scale(c.head_dim)
    if c.lora is not None:
        layers |= _adapters(layers, c.lora)
    stacked = {
        name: dataclasses.replace(d, shape=(c.num_layers, *d.shape), axes=(None, *d.axes))
        for name, d in layers.items()
    }
    params: Params = {
        "embed": matrix((vocab, hidden), ("vocab", "embed"), hidden),
        "layers": stacked,
        "final_norm": scale(hidden),
    }
    if not c.tie_embeddings:
        params["head"] = matrix((vocab, hidden), ("vocab", "embed"), hidden)
    return params


def _adapters(layers: dict[str, Declaration], lora: LoraConfig) -> dict[str, Declaration]:
    adapters = {}
    for name in lora.targets:
        d = layers[name]
        inputs = 2 if name == "o" else 1  # heads, and what is in a head
        adapters[f"{name}_lora_a"] = Declaration(
            (*d.shape[:inputs], lora.rank), (*d.axes[:inputs], None), "normal", d.fan_in
        )
        adapters[f"{name}_lora_b"] = Declaration(
            (lora.rank, *d.shape[inputs:]), (None, *d.axes[inputs:]), "zeros"
        )
    return adapters


def _is_declaration(x: Any) -> bool:
    return isinstance(x, Declaration)


def init(key: jax.Array, config: ModelConfig, dtype: Any = "float32") -> Params:
    """Random parameters: normal with variance 1 / fan-in, norm scales one, biases zero.

    Args:
      dtype: of the arrays, as "bfloat16" or `jnp.bfloat16`.

    Example:
      >>> import jax
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_config
      >>> config = load_config(model_directory("embedded:student"))
      >>> params = init(jax.random.key(0), config)
      >>> sum(x.size for x in jax.tree.leaves(params)) == count(config)
      True
    """
    return draw(key, declare(config), dtype)


def draw(key: jax.Array, declarations: Params, dtype: Any = "float32") -> Params:
    """Random arrays as any tree of declarations says."""
    dtype = dtype_name(dtype)
    leaves, tree = jax.tree.flatten(declarations, is_leaf=_is_declaration)

    def array(key: jax.Array, d: Declaration) -> jax.Array:
        if d.start != "normal":
            return jnp.full(d.shape, 1.0 if d.start == "ones" else 0.0, dtype)
        return (jax.random.normal(key, d.shape) / math.sqrt(d.fan_in)).astype(dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [array(k, d) for k, d in zip(keys, leaves, strict=True)])


def abstract(config: ModelConfig, dtype: Any = "float32") -> Params:
    """Shapes and dtypes of the parameters, without allocating any; sharded if there is a mesh."""
    places = shardings(config, config.mesh, config.rules) if config.mesh is not None else None

    def struct(d: Declaration, sharding: NamedSharding | None = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(d.shape, jnp.dtype(dtype), sharding=sharding)

    trees = (declare(config),) if places is None else (declare(config), places)
    return jax.tree.map(struct, *trees, is_leaf=_is_declaration)


def shardings(config: ModelConfig, mesh: Mesh, rules: Rules | None = None) -> Params:
    """The `NamedSharding` of every parameter on `mesh`.

    Raises:
      ValueError: an array does not divide over its mesh axes.
    """
    return jax.tree.map_with_path(
        lambda path, d: named_sharding(
            jax.tree_util.keystr(path, simple=True, separator="/"),
            d.shape,
            d.axes,
            mesh,
            config.rules if rules is None else rules,
        ),
        declare(config),
        is_leaf=_is_declaration,
    )


def count(config: ModelConfig) -> int:
    """Number of parameters."""
    leaves = jax.tree.leaves(declare(config), is_leaf=_is_declaration)
    return sum(math.prod(d.shape) for d in leaves)
