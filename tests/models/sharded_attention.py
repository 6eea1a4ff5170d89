"""Splash attention on 2 x 2 x 2 fake devices against one. Prints `equal`."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from models import ModelConfig
from models.attention import splash_attention

mesh = Mesh(
    np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 3,
)  # fmt: skip
config = ModelConfig("qwen3", 64, 32, 48, 2, 4, 2, 64, qk_norm=True)
rng = np.random.default_rng(0)
q, k, v = (jnp.asarray(rng.normal(0, 1, (4, 60, n, 64)), jnp.float32) for n in (4, 2, 2))
segments = jnp.asarray(rng.integers(0, 2, (4, 60)).cumsum(1), jnp.int32)


def run(config):
    def loss(q, k, v):
        return jnp.sum(jnp.sin(splash_attention(q, k, v, segments, config)))

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)


for ours, theirs in zip(
    *map(jax.tree.leaves, (run(config.replace(mesh=mesh)), run(config))), strict=True
):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
print("equal")
