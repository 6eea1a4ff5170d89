"""The parameters of a model: one declaration per array, from which everything else follows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from models.config import LoraConfig, ModelConfig
from models.dtypes import dtype_name
from models.sharding import LogicalAxes, Rules, named_sharding

Params = dict[str, Any]
Start = Literal["normal", "ones", "zeros"]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One array: its shape, the logical name of every axis, and how it starts.

    Attributes:
      fan_in: the number of inputs, whose inverse is the variance of a normal start.
      start: `normal` (matrices), `ones` (norm scales) or `zeros` (biases, and B of adapters).
    """

    shape: tuple[int, ...]
    axes: LogicalAxes
    fan_in: int = 1
    start: Start = "normal"


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

    def scale(size: int) -> Declaration:
        return Declaration((size,), (None,), start="ones")

    layers = {
        "attn_norm": scale(hidden),
        "q": Declaration((hidden, *q), ("embed", *q_axes), hidden),
        "k": Declaration((hidden, *kv), ("embed", *kv_axes), hidden),
        "v": Declaration((hidden, *kv), ("embed", *kv_axes), hidden),
        "o": Declaration((*q, hidden), (*q_axes, "embed"), math.prod(q)),
        "mlp_norm": scale(hidden),
        "gate": Declaration((hidden, mlp), ("embed", "mlp"), hidden),
        "up": Declaration((hidden, mlp), ("embed", "mlp"), hidden),
        "down": Declaration((mlp, hidden), ("mlp", "embed"), mlp),
    }
    if c.qkv_bias:
        layers["q_bias"] = Declaration(q, q_axes, start="zeros")
        layers["k_bias"] = Declaration(kv, kv_axes, start="zeros")
        layers["v_bias"] = Declaration(kv, kv_axes, start="zeros")
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
        "embed": Declaration((vocab, hidden), ("vocab", "embed"), hidden),
        "layers": stacked,
        "final_norm": scale(hidden),
    }
    if not c.tie_embeddings:
        params["head"] = Declaration((vocab, hidden), ("vocab", "embed"), hidden)
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
            (lora.rank, *d.shape[inputs:]), (None, *d.axes[inputs:]), start="zeros"
        )
    return adapters


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
    leaves, tree = jax.tree.flatten(declarations)

    def array(key: jax.Array, d: Declaration) -> jax.Array:
        if d.start != "normal":
            return jnp.full(d.shape, 1.0 if d.start == "ones" else 0.0, dtype)
        return (jax.random.normal(key, d.shape) / math.sqrt(d.fan_in)).astype(dtype)

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [array(k, d) for k, d in zip(keys, leaves, strict=True)])


def abstract(config: ModelConfig, dtype: Any = "float32") -> Params:
    """Shapes and dtypes of the parameters, without allocating any; sharded if there is a mesh."""
    structs = jax.tree.map(lambda d: jax.ShapeDtypeStruct(d.shape, dtype), declare(config))
    if config.mesh is None:
        return structs
    return jax.tree.map(lambda x, s: x.update(sharding=s), structs, shardings(config, config.mesh))


def shardings(config: ModelConfig, mesh: Mesh, rules: Rules | None = None) -> Params:
    """The `NamedSharding` of every parameter on `mesh`.

    Raises:
      ValueError: an array does not divide over its mesh axes.
    """
    rules = config.rules if rules is None else rules
    declared = flatten_dict(declare(config), sep="/")
    places = {n: named_sharding(n, d.shape, d.axes, mesh, rules) for n, d in declared.items()}
    return unflatten_dict(places, sep="/")


def count(config: ModelConfig) -> int:
    """Number of parameters."""
    return sum(math.prod(d.shape) for d in jax.tree.leaves(declare(config)))
