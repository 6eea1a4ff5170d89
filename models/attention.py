"""Causal self-attention of whole sequences, by the best kernel that the platform's library has.

B rows, T tokens, H query heads, Hk key and value heads, Dh numbers per head.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from models.config import ModelConfig
from models.sharding import partition_spec

Kernel = Literal["xla", "cudnn", "splash"]

_HEADS = ("batch", None, "heads", None)
_KV_HEADS = ("batch", None, "kv_heads", None)
# Tiles of the splash kernel have whole registers of 128 lanes.
_LANES, _LARGEST_TILE = 128, 512


def attention(
    q_BxTxHxDh: jax.Array,
    k_BxTxHkxDh: jax.Array,
    v_BxTxHkxDh: jax.Array,
    segment_ids_BxT: jax.Array | None,
    config: ModelConfig,
) -> jax.Array:
    """Every token attends to itself and what lies before it in its segment; [B, T, H, Dh].

    The kernel is `config.attention`; `auto` takes `cudnn` on a GPU and `splash` on a TPU where
    their shapes allow it, and else `xla`, which holds scores of all pairs.

    Raises:
      ValueError: the kernel that the config names does not run on these shapes or this platform.
    """
    kernel = choose_kernel(config, q_BxTxHxDh.shape[1])
    if kernel == "splash":
        return splash_attention(q_BxTxHxDh, k_BxTxHkxDh, v_BxTxHkxDh, segment_ids_BxT, config)
    if kernel == "cudnn":
        mask = None if segment_ids_BxT is None else _same_segment(segment_ids_BxT)[:, None]
        return jax.nn.dot_product_attention(
            q_BxTxHxDh, k_BxTxHkxDh, v_BxTxHkxDh, mask=mask, is_causal=True, implementation="cudnn"
        )
    length = q_BxTxHxDh.shape[1]
    seen_BxTxT = jnp.tril(jnp.ones((1, length, length), bool))
    if segment_ids_BxT is not None:
        seen_BxTxT = seen_BxTxT & _same_segment(segment_ids_BxT)
    k, v = (jnp.swapaxes(x, 1, 2) for x in (k_BxTxHkxDh, v_BxTxHkxDh))
    return grouped_attention(q_BxTxHxDh, k, v, seen_BxTxT)


def _same_segment(segment_ids_BxT: jax.Array) -> jax.Array:
    return segment_ids_BxT[:, :, None] == segment_ids_BxT[:, None, :]


def choose_kernel(config: ModelConfig, length: int) -> Kernel:
    """`xla`, `cudnn` or `splash`, for sequences of `length` tokens; see `attention`."""
    here = platform(config.mesh)
    problems = {
        "xla": "",
        "cudnn": _cudnn_problem(config, length, here),
        "splash": _splash_problem(config, here),
    }
    if config.attention == "auto":
        best = {"gpu": "cudnn", "tpu": "splash"}.get(here, "xla")
        return "xla" if problems[best] else cast(Kernel, best)
    if problem := problems[config.attention]:
        raise ValueError(
            f"attention={config.attention!r}: {problem} Use 'auto', which takes what fits."
        )
    return cast(Kernel, config.attention)


def grouped_attention(
    q_BxTxHxDh: jax.Array, k_BxHkxSxDh: jax.Array, v_BxHkxSxDh: jax.Array, seen_BxTxS: jax.Array
) -> jax.Array:
    """Two products with a softmax in float32 between them [B, T, H, Dh].

    The queries of a group, of all heads and tokens, are the rows of one matrix. Kept apart, as
    `jax.nn.dot_product_attention` does, they took twice as long on CPU in training, and five times
    as long in decoding.

    Args:
      k_BxHkxSxDh, v_BxHkxSxDh: keys and values of S tokens, as a cache holds them.
      seen_BxTxS: whether a query may see a token; it must see one. B may be 1.
    """
    dtype = q_BxTxHxDh.dtype
    if dtype == jnp.float16:
        # XLA on CPU has no float16 product with float32 sums.
        q_BxTxHxDh, k_BxHkxSxDh, v_BxHkxSxDh = (
            x.astype(jnp.float32) for x in (q_BxTxHxDh, k_BxHkxSxDh, v_BxHkxSxDh)
        )
    batch, length, heads, size = q_BxTxHxDh.shape
    kv_heads, tokens = k_BxHkxSxDh.shape[1:3]
    group = heads // kv_heads
    q = q_BxTxHxDh.reshape(batch, length, kv_heads, group, size).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, group * length, size)
    scores = jnp.einsum("bkte,bkse->bkts", q, k_BxHkxSxDh, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, group, length, tokens) / math.sqrt(size)
    scores = jnp.where(seen_BxTxS[:, None, None], scores, -jnp.inf)
    probs = jax.nn.softmax(scores, axis=-1).astype(v_BxHkxSxDh.dtype)
    probs = probs.reshape(batch, kv_heads, group * length, tokens)
    out = jnp.einsum("bkts,bkse->bkte", probs, v_BxHkxSxDh)
    out = out.reshape(batch, kv_heads, group, length, size).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, length, heads, size).astype(dtype)


def platform(mesh: Mesh | None) -> str:
    """`cpu`, `gpu` or `tpu`: what programs are compiled for."""
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    return {"cuda": "gpu", "rocm": "gpu"}.get(device.platform, device.platform)


def _cudnn_problem(config: ModelConfig, length: int, platform: str) -> str:
    if platform != "gpu":
        return f"the platform is {platform!r}, not a GPU."
    if config.dtype not in ("bfloat16", "float16"):
        return f"it computes in 16 bits, but dtype={config.dtype!r}."
    if config.head_dim % 8 or config.head_dim > 128:
        return f"head_dim={config.head_dim} is no multiple of 8 up to 128."
    if length % 2:
        return f"{length} tokens are an odd number."
    return ""


def _splash_problem(config: ModelConfig, platform: str) -> str:
    if platform != "tpu":
        return f"the platform is {platform!r}, not a TPU."
    if config.head_dim % 64:
        return f"head_dim={config.head_dim} is no multiple of 64."
    return ""


def splash_attention(
    q_BxTxHxDh: jax.Array,
    k_BxTxHkxDh: jax.Array,
    v_BxTxHkxDh: jax.Array,
    segment_ids_BxT: jax.Array | None,
    config: ModelConfig,
) -> jax.Array:
    """As `attention`, by the TPU's splash kernel; on other platforms it is interpreted, slowly."""
    batch, length = q_BxTxHxDh.shape[:2]
    if segment_ids_BxT is None:
        segment_ids_BxT = jnp.ones((batch, length), jnp.int32)
    # The kernel wants whole tiles. What is added lies behind all tokens: causality hides it.
    tile = min(_LARGEST_TILE, -(-length // _LANES) * _LANES)
    extra = -length % tile
    # It also leaves the scores unscaled.
    q = q_BxTxHxDh * jnp.asarray(1 / math.sqrt(config.head_dim), q_BxTxHxDh.dtype)
    q, k, v = (
        jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0))) for x in (q, k_BxTxHkxDh, v_BxTxHkxDh)
    )
    segments = jnp.pad(segment_ids_BxT, ((0, 0), (0, extra)))
    run = functools.partial(_splash_local, tile=tile, interpret=platform(config.mesh) != "tpu")
    if config.mesh is not None:
        # A compiler cannot split a kernel: every device runs it on its rows and heads.
        heads, kv_heads = (
            partition_spec(x, config.mesh, config.rules) for x in (_HEADS, _KV_HEADS)
        )
        rows = PartitionSpec(heads[0])
        run = jax.shard_map(
            run,
            mesh=config.mesh,
            in_specs=(heads, kv_heads, kv_heads, rows),
            out_specs=heads,
            check_vma=False,  # the kernel's outputs do not say what they vary over
        )
    return run(q, k, v, segments)[:, :length]


def _splash_local(
    q_BxTxHxDh: jax.Array,
    k_BxTxHkxDh: jax.Array,
    v_BxTxHkxDh: jax.Array,
    segments_BxT: jax.Array,
    tile: int,
    interpret: bool,
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import (  # slow to import, rarely needed
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads = q_BxTxHxDh.shape[1:3]
    mask = masks.MultiHeadMask([masks.CausalMask((length, length))] * heads)
    tiles = kernels.BlockSizes(
        block_q=tile,
        block_kv=tile,
        block_kv_compute=tile,
        block_q_dkv=tile,
        block_kv_dkv=tile,
        block_kv_dkv_compute=tile,
        block_q_dq=tile,
        block_kv_dq=tile,
    )
    kernel = kernels.make_splash_mha_single_device(mask, block_sizes=tiles, interpret=interpret)

    def row(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        q, k, v = (jnp.swapaxes(x, 0, 1) for x in (q, k, v))
        out = kernel(q, k, v, segment_ids=kernels.SegmentIds(segments, segments))
        return jnp.swapaxes(out, 0, 1)

    return jax.vmap(row)(q_BxTxHxDh, k_BxTxHkxDh, v_BxTxHkxDh, segments_BxT)
