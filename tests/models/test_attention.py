"""Attention kernels: which one runs where, and the TPU's against a plain one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import attention as module
from models import forward
from models.attention import attention, choose_kernel, splash_attention

from .tiny_models import tiny_config, tiny_params


def inputs(length: int, seed: int = 0, heads: int = 4, kv_heads: int = 2, size: int = 64):
    rng = np.random.default_rng(seed)
    q, k, v = (
        jnp.asarray(rng.normal(0, 1, (2, length, n, size)), jnp.float32)
        for n in (heads, kv_heads, kv_heads)
    )
    lengths = np.array([length, length - 17])
    borders = np.array([[length // 3], [length // 2]])
    at = np.arange(length)
    segments = np.where(at < lengths[:, None], 1 + (at >= borders), 0)
    return q, k, v, jnp.asarray(segments, jnp.int32)


def plain(q, k, v, segments):
    """Attention written out in NumPy, float64."""
    q, k, v, segments = (np.asarray(x, np.float64) for x in (q, k, v, segments))
    group = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, group, axis=2) for x in (k, v))
    scores = np.einsum("bthe,bshe->bhts", q, k) / np.sqrt(q.shape[-1])
    at = np.arange(q.shape[1])
    seen = (at[:, None] >= at) & (segments[:, :, None] == segments[:, None, :])
    scores = np.where(seen[:, None], scores, -np.inf)
    probs = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bshe->bthe", probs / probs.sum(-1, keepdims=True), v)


CONFIG = tiny_config(head_dim=64)


@pytest.mark.parametrize("segmented", [True, False])
def test_the_library_kernel_is_attention(segmented):
    q, k, v, segments = inputs(40)
    out = attention(q, k, v, segments if segmented else None, CONFIG)
    expected = plain(q, k, v, segments if segmented else jnp.ones_like(segments))
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("length", [100, pytest.param(140, marks=pytest.mark.slow)])
def test_splash_is_attention_with_its_gradients(length):
    q, k, v, segments = inputs(length)
    out = splash_attention(q, k, v, segments, CONFIG)
    np.testing.assert_allclose(out, plain(q, k, v, segments), atol=2e-5)
    weights = jnp.asarray(np.random.default_rng(1).normal(0, 1, out.shape), jnp.float32)

    def gradients(kernel):
        return jax.grad(lambda *x: jnp.sum(weights * kernel(*x, segments, CONFIG)), (0, 1, 2))

    for ours, theirs in zip(
        gradients(splash_attention)(q, k, v), gradients(attention)(q, k, v), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_splash_without_segments():
    q, k, v, segments = inputs(50)
    out = splash_attention(q, k, v, None, CONFIG)
    np.testing.assert_allclose(out, plain(q, k, v, jnp.ones_like(segments)), atol=2e-5)


def test_splash_on_a_mesh_is_splash(tmp_path):
    """Rows over data and fsdp, heads over tensor: eight devices in a process of their own."""
    script = Path(__file__).with_name("sharded_attention.py")
    finished = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "equal" in finished.stdout


def on(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(module.jax, "devices", lambda: [SimpleNamespace(platform=platform)])


@pytest.mark.parametrize(
    ("platform", "fields", "length", "kernel"),
    [
        ("cpu", {}, 64, "xla"),
        ("cuda", {"dtype": "bfloat16", "head_dim": 128}, 64, "cudnn"),
        ("cuda", {"dtype": "float32", "head_dim": 128}, 64, "xla"),
        ("cuda", {"dtype": "bfloat16", "head_dim": 256}, 64, "xla"),
        ("cuda", {"dtype": "bfloat16", "head_dim": 12}, 64, "xla"),
        ("cuda", {"dtype": "bfloat16", "head_dim": 128}, 63, "xla"),
        ("tpu", {"head_dim": 128}, 63, "splash"),
        ("tpu", {"head_dim": 12}, 64, "xla"),
        ("tpu", {"head_dim": 128, "attention": "xla"}, 64, "xla"),
    ],
)
def test_auto_takes_the_kernel_that_fits(platform, fields, length, kernel, monkeypatch):
    on(monkeypatch, platform)
    assert choose_kernel(tiny_config(**fields), length) == kernel


@pytest.mark.parametrize(
    ("platform", "fields", "length", "reason"),
    [
        ("cpu", {"attention": "cudnn"}, 64, "the platform is 'cpu', not a GPU"),
        ("cpu", {"attention": "splash"}, 64, "the platform is 'cpu', not a TPU"),
        ("cuda", {"attention": "cudnn"}, 64, "dtype='float32'"),
        ("cuda", {"attention": "cudnn", "dtype": "bfloat16"}, 64, "head_dim=12"),
        ("cuda", {"attention": "cudnn", "dtype": "bfloat16", "head_dim": 64}, 63, "63 tokens"),
        ("tpu", {"attention": "splash"}, 64, "head_dim=12"),
    ],
)
def test_a_named_kernel_that_does_not_fit_is_refused(platform, fields, length, reason, monkeypatch):
    on(monkeypatch, platform)
    with pytest.raises(ValueError, match=rf"attention='.*{reason}.*Use 'auto'"):
        choose_kernel(tiny_config(**fields), length)


def test_the_forward_pass_asks_for_the_configs_kernel():
    config = tiny_config(attention="cudnn")
    with pytest.raises(ValueError, match="attention='cudnn'"):
        forward(tiny_params(config), config, jnp.zeros((1, 4), jnp.int32))
    with pytest.raises(ValueError, match="attention='flash': choose one of"):
        tiny_config(attention="flash")
