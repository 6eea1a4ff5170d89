"""The forward pass: tokens to hidden states to logits. Shapes: B rows, T tokens, D hidden."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from models.attention import attention, platform
from models.config import ModelConfig
from models.lora import adapter_output, frozen_base
from models.parameters import Params
from models.rope import rope, rope_frequencies
from models.sharding import LogicalAxes, constrain

# Maps queries [B, T, H, Dh], keys and values [B, T, Hk, Dh] to outputs [B, T, H, Dh].
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalization of x [..., D] by scale [D], computed in float32."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return scale.astype(x.dtype) * x32.astype(x.dtype)


def embed(params: Params, config: ModelConfig, tokens_BxT: jax.Array) -> jax.Array:
    """Token embeddings [B, T, D]. Ids beyond the table read its last row."""
    # Left split over its columns, the table would yield rows that every device holds in full.
    table = _constrain(params["embed"].astype(config.dtype), ("vocab", None), config)
    x = table.at[tokens_BxT].get(mode="clip")
    return _constrain(x, ("batch", None, None), config)


def product(rows_NxI: jax.Array, matrix_IxO: jax.Array, config: ModelConfig) -> jax.Array:
    """The product of two matrices of one dtype, in that dtype [N, O].

    XLA on CPU has products of bfloat16 only of several rows, and with sums asked for in float32.
    For any other it copies the matrix to float32, and a loop over tokens keeps all the copies.
    """
    if rows_NxI.dtype != jnp.bfloat16 or platform(config.mesh) != "cpu":
        return rows_NxI @ matrix_IxO
    count = len(rows_NxI)
    rows_NxI = jnp.pad(rows_NxI, ((0, max(0, 2 - count)), (0, 0)))
    sums_NxO = jax.lax.dot(rows_NxI, matrix_IxO, preferred_element_type=jnp.float32)
    return sums_NxO[:count].astype(jnp.bfloat16)


def block(
    x_BxTxD: jax.Array,
    layer: Params,
    config: ModelConfig,
    positions_BxT: jax.Array,
    attend: Attend,
) -> jax.Array:
    """One decoder layer; `attend` is where training and cached decoding differ."""
    dtype = x_BxTxD.dtype
    adapted = () if config.lora is None else config.lora.targets

    def linear(x: jax.Array, name: str) -> jax.Array:
        weight = layer[name].astype(dtype)
        axes = x.ndim - 2
        # As a product of two matrices: with more axes, XLA on CPU transposes in the backward pass.
        rows = x.reshape(-1, math.prod(x.shape[2:]))
        y = product(rows, weight.reshape(rows.shape[1], -1), config)
        y = y.reshape(*x.shape[:2], *weight.shape[axes:])
        return y + adapter_output(x, layer, name, config) if name in adapted else y

    with jax.named_scope("attention"):
        h = rms_norm(x_BxTxD, layer["attn_norm"], config.norm_eps)
        q = linear(h, "q")
        k = linear(h, "k")
        v = linear(h, "v")
        if config.qkv_bias:
            q = q + layer["q_bias"].astype(dtype)
            k = k + layer["k_bias"].astype(dtype)
            v = v + layer["v_bias"].astype(dtype)
        if config.qk_norm:
            q = rms_norm(q, layer["q_norm"], config.norm_eps)
            k = rms_norm(k, layer["k_norm"], config.norm_eps)
        scaling = config.rope_scaling
        frequencies_F = rope_frequencies(config.rope_theta, config.head_dim, scaling)
        magnitude = 1.0 if scaling is None else scaling.magnitude
        q = rope(q, positions_BxT, frequencies_F, magnitude)
        k = rope(k, positions_BxT, frequencies_F, magnitude)
        q = _constrain(q, ("batch", None, "heads", None), config)
        k = _constrain(k, ("batch", None, "kv_heads", None), config)
        v = _constrain(v, ("batch", None, "kv_heads", None), config)
        out = linear(attend(q, k, v), "o")
        x_BxTxD = _constrain(x_BxTxD + out, ("batch", None, None), config)
    with jax.named_scope("mlp"):
        h = rms_norm(x_BxTxD, layer["mlp_norm"], config.norm_eps)
        gate = jax.nn.silu(linear(h, "gate"))
        up = linear(h, "up")
        h = _constrain(gate * up, ("batch", None, "mlp"), config)
        out = linear(h, "down")
    return _constrain(x_BxTxD + out, ("batch", None, None), config)


def forward_hidden(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    attend: Attend | None = None,
) -> jax.Array:
    """Hidden states [B, T, D] after the final norm; `logits` of them are next-token logits.

    Args:
      tokens: [B, T] token ids.
      positions: [B, T] rotary positions; counted from 0 along the row by default.
      segment_ids: [B, T]; tokens attend only within their own segment; one segment by default.
      attend: what attends to what, in place of causal attention within segments.
    """
    params = frozen_base(params, config)
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

    def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, segment_ids, config)

    attend = causal if attend is None else attend

    def step(x: jax.Array, layer: Params) -> tuple[jax.Array, None]:
        return block(x, layer, config, positions, attend), None

    if config.remat == "full":
        step = jax.checkpoint(step)
    elif config.remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        step = jax.checkpoint(step, policy=policy)
    x, layers = embed(params, config, tokens), params["layers"]
    if isinstance(layers, list):  # of a model that is held as decoding reads it
        for layer in layers:
            x, _ = step(x, layer)
    else:
        x, _ = jax.lax.scan(step, x, layers)
    return rms_norm(x, params["final_norm"], config.norm_eps)


def logits(params: Params, config: ModelConfig, hidden_BxTxD: jax.Array) -> jax.Array:
    """Next-token logits [..., V] of hidden states [..., D], in float32."""
    params = frozen_base(params, config)
    head = params["embed"] if config.tie_embeddings else params["head"]
    return jnp.einsum(
        "...d,vd->...v", hidden_BxTxD, head.astype(config.dtype), preferred_element_type=jnp.float32
    )


def forward(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """Next-token logits [B, T, V] in float32.

    Args:
      tokens, positions, segment_ids: [B, T], as in `forward_hidden`.

    Example:
      >>> import jax.numpy as jnp
      >>> from models.embedded import model_directory
      >>> from models.huggingface.checkpoint import load_pretrained
      >>> config, params = load_pretrained(model_directory("embedded:student"))
      >>> tokens = jnp.array([[5, 6, 7]])
      >>> forward(params, config, tokens, jnp.arange(3)[None], jnp.ones_like(tokens)).shape
      (1, 3, 98)
    """
    hidden = forward_hidden(params, config, tokens, positions, segment_ids)
    return logits(params, config, hidden)


def _constrain(x: jax.Array, axes: LogicalAxes, config: ModelConfig) -> jax.Array:
    return constrain(x, axes, config.mesh, config.rules)
