"""Low-rank adapters (LoRA, arXiv 2106.09685): a frozen matrix W, and what trains, A and B.

A target computes x W + (alpha / rank) (x A) B. The product A B is never formed: it has the size of
W, and so would its gradient. One tree holds the base and the adapters. A config with `lora` reads
both, and the same config without it reads the base alone: a student and the model it started from.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.parameters import Params, declare, draw, shardings
from models.sharding import constrain


def is_adapter(name: str) -> bool:
    """Whether the array of this name, or path, is an adapter's A or B."""
    return name.endswith(("_lora_a", "_lora_b"))


def trainable(params: Params, config: ModelConfig) -> Any:
    """A tree of bools like `params`: what trains. Everything, unless there are adapters."""
    return jax.tree.map_with_path(
        lambda path, _: config.lora is None or is_adapter(path[-1].key), params
    )


def frozen_base(params: Params, config: ModelConfig) -> Params:
    """The same parameters, of which only what trains has a gradient."""
    trains = trainable(params, config)
    return jax.tree.map(lambda x, own: x if own else jax.lax.stop_gradient(x), params, trains)


def adapter_output(x_BxTxI: jax.Array, layer: Params, name: str, config: ModelConfig) -> jax.Array:
    """What the adapter of the matrix `name` adds to its output [B, T, ...], in the dtype of `x`.

    Args:
      x_BxTxI: the matrix's input; it may have more than one axis behind B and T.
    """
    assert config.lora is not None
    a, b = (layer[f"{name}_lora_{side}"].astype(x_BxTxI.dtype) for side in "ab")
    low_BxTxR = jnp.tensordot(x_BxTxI, a, axes=x_BxTxI.ndim - 2)
    low_BxTxR = constrain(low_BxTxR, ("batch", None, None), config.mesh, config.rules)
    return jnp.tensordot(config.lora.scale * low_BxTxR, b, axes=1)


def add_adapters(params: Params, config: ModelConfig, key: jax.Array) -> Params:
    """The tree of a base with fresh adapters, in float32 and on `config.mesh`.

    A is normal with variance 1 / fan-in and B zero, so that the student starts as the base.

    Args:
      params: a base; adapters that it has are replaced.
      config: with `lora`.

    Raises:
      ValueError: the config has no `lora`.
    """
    if config.lora is None:
        raise ValueError("config.lora is None: there are no adapters to add.")
    declared = {n: d for n, d in declare(config)["layers"].items() if is_adapter(n)}
    layers = {} if config.mesh is None else shardings(config, config.mesh)["layers"]
    places = {name: layers[name] for name in declared} if layers else None
    fresh = jax.jit(lambda key: draw(key, declared), out_shardings=places)(key)
    base = {name: x for name, x in params["layers"].items() if not is_adapter(name)}
    return {**params, "layers": {**base, **fresh}}


def merge(params: Params, config: ModelConfig) -> tuple[Params, ModelConfig]:
    """The model without adapters: every target is W + (alpha / rank) A B, in W's dtype.

    The sum is formed in float32. A model without `config.lora` loses the adapters that it ignores.

    Example:
      >>> import jax
      >>> from models.config import LoraConfig
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_pretrained
      >>> config, params = load_pretrained(model_directory("embedded:student"))
      >>> config = config.replace(lora=LoraConfig(rank=2, alpha=4.0))
      >>> params = add_adapters(params, config, jax.random.key(0))
      >>> merged, plain = merge(params, config)
      >>> plain.lora is None
      True
    """
    layers = {name: x for name, x in params["layers"].items() if not is_adapter(name)}
    if config.lora is not None:
        for name in config.lora.targets:
            a, b = (params["layers"][f"{name}_lora_{side}"] for side in "ab")
            layers[name] = _merged(layers[name], a, b, config.lora.scale)
    return {**params, "layers": layers}, config.replace(lora=None)


@jax.jit
def _merged(matrix: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    product = jax.vmap(functools.partial(jnp.tensordot, axes=1, precision="highest"))
    sum_ = matrix.astype(jnp.float32) + scale * product(
        a.astype(jnp.float32), b.astype(jnp.float32)
    )
    return sum_.astype(matrix.dtype)
