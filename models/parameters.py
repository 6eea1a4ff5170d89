"""The parameters of a model: one declaration per array, from which everything else follows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from models.config import LoraConfig, ModelConfig
from models.sharding import LogicalAxes, Rules, named_sharding

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One array: its shape, the logical name of every axis, and how it starts.

    `fan_in` is the number of inputs a normal initialiser is scaled by; 0 stands for ones
    (norm scales) and -1 for zeros (biases, and B of adapters).
    """

    shape: tuple[int, ...]
    axes: LogicalAxes
    fan_in: int


def declare(config: ModelConfig) -> Params:
    """The tree of declarations of a model's parameters.

    Layers are stacked: every array below `layers` has a leading axis of `num_layers`. With
    `config.lora` the matrix `name` has adapters `name_lora_a` [inputs, rank] and `name_lora_b`
    [rank, outputs], with the matrix's own axes on either side.
    """
    c = config
    layers = {
        "attn_norm": Declaration((c.hidden_size,), (None,), 0),
        "q": Declaration((c.hidden_size, c.num_heads, c.head_dim), ("embed", "heads", None), c.hidden_size),
        "k": Declaration((c.hidden_size, c.num_kv_heads, c.head_dim), ("embed", "kv_heads", None), c.hidden_size),
        "v": Declaration((c.hidden_size, c.num_kv_heads, c.head_dim), ("embed", "kv_heads", None), c.hidden_size),
        "o": Declaration((c.num_heads, c.head_dim, c.hidden_size), ("heads", None, "embed"), c.num_heads * c.head_dim),
        "mlp_norm": Declaration((c.hidden_size,), (None,), 0),
        "gate": Declaration((c.hidden_size, c.intermediate_size), ("embed", "mlp"), c.hidden_size),
        "up": Declaration((c.hidden_size, c.intermediate_size), ("embed", "mlp"), c.hidden_size),
        "down": Declaration((c.intermediate_size, c.hidden_size), ("mlp", "embed"), c.intermediate_size),
    }  # fmt: skip
    if c.qkv_bias:
        layers["q_bias"] = Declaration((c.num_heads, c.head_dim), ("heads", None), -1)
        layers["k_bias"] = Declaration((c.num_kv_heads, c.head_dim), ("kv_heads", None), -1)
        layers["v_bias"] = Declaration((c.num_kv_heads, c.head_dim), ("kv_heads", None), -1)
    if c.qk_norm:
        layers["q_norm"] = Declaration((c.head_dim,), (None,), 0)
        layers["k_norm"] = Declaration((c.head_dim,), (None,), 0)
    if c.lora is not None:
        layers |= _adapters(layers, c.lora)
    stacked = {
        name: Declaration((c.num_layers, *d.shape), (None, *d.axes), d.fan_in)
        for name, d in layers.items()
    }
    params: Params = {
        "embed": Declaration((c.vocab_size, c.hidden_size), ("vocab", "embed"), c.hidden_size),
        "layers": stacked,
        "final_norm": Declaration((c.hidden_size,), (None,), 0),
    }
    if not c.tie_embeddings:
        params["head"] = Declaration(
            (c.vocab_size, c.hidden_size), ("vocab", "embed"), c.hidden_size
        )
    return params


def _adapters(layers: dict[str, Declaration], lora: LoraConfig) -> dict[str, Declaration]:
    adapters = {}
    for name in lora.targets:
        d = layers[name]
        inputs = 2 if name == "o" else 1  # heads, and what is in a head
        adapters[f"{name}_lora_a"] = Declaration(
            (*d.shape[:inputs], lora.rank), (*d.axes[:inputs], None), d.fan_in
        )
        adapters[f"{name}_lora_b"] = Declaration(
            (lora.rank, *d.shape[inputs:]), (None, *d.axes[inputs:]), -1
        )
    return adapters


def _is_declaration(x: Any) -> bool:
    return isinstance(x, Declaration)


def init(key: jax.Array, config: ModelConfig, dtype: str = "float32") -> Params:
    """Random parameters: normal with variance 1 / fan-in, norm scales one, biases zero."""
    return draw(key, declare(config), dtype)


def draw(key: jax.Array, declarations: Params, dtype: str = "float32") -> Params:
    """Random arrays as any tree of declarations says."""
    leaves, tree = jax.tree.flatten(declarations, is_leaf=_is_declaration)

    def array(key: jax.Array, d: Declaration) -> jax.Array:
        if d.fan_in <= 0:
            return jnp.full(d.shape, 1.0 + d.fan_in, dtype)
        return (jax.random.normal(key, d.shape) / math.sqrt(d.fan_in)).astype(dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [array(k, d) for k, d in zip(keys, leaves, strict=True)])


def abstract(config: ModelConfig, dtype: str = "float32") -> Params:
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


def constrain_params(params: Params, config: ModelConfig) -> Params:
    """Pins arrays like the parameters, such as gradients, to where the parameters lie.

    Left to itself the partitioner may keep them whole, or choose another layout. Without a mesh
    they are returned as they are.
    """
    if config.mesh is None:
        return params
    return jax.lax.with_sharding_constraint(params, shardings(config, config.mesh))


def count(config: ModelConfig) -> int:
    """Number of parameters."""
    leaves = jax.tree.leaves(declare(config), is_leaf=_is_declaration)
    return sum(math.prod(d.shape) for d in leaves)
