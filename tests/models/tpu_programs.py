"""Compiles a train step and sampling for four chips of a TPU v5e, without one. Prints `compiled`.

Ahead of time, against a description of the topology: needs libtpu (`pip install -e ".[tpu]"`).
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import distill.step
import models
from distill.loss import trajectory_loss
from distill.sharding import state_shardings
from distill.signal import Signal
from distill.state import create_state
from distill.trajectories import Trajectories
from models.attention import choose_kernel

chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(
    np.array(chips).reshape(1, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
)
config = models.ModelConfig(
    "qwen3", 2048, 256, 512, 2, 4, 2, 128, qk_norm=True, dtype="bfloat16", mesh=mesh
)
rows, width = 8, 320
assert choose_kernel(config, width) == "splash"
placed = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
params = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    models.abstract(config), models.shardings(config, mesh),
)  # fmt: skip
optimizer = optax.adamw(1e-3)


def loss(params, teacher, trajectories):
    return trajectory_loss(params, config, trajectories, teacher, config, Signal("reverse_kl"))


def array(dtype):
    return jax.ShapeDtypeStruct((rows, width), dtype, sharding=placed)


state = jax.eval_shape(lambda p: create_state(p, optimizer), models.abstract(config))
places = state_shardings(state, optimizer, config, mesh)
state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, places)
integers, floats = array(jnp.int32), array(jnp.float32)
trajectories = Trajectories(integers, integers, floats, floats, integers, integers)
step = jax.jit(distill.step.make_train_step(loss, optimizer), out_shardings=(places, None))
program = step.lower(state, params, trajectories).compile()
assert "tpu_custom_call" in program.as_text()  # the kernel

prompts = jax.ShapeDtypeStruct((rows, 64), jnp.int32, sharding=placed)
lengths = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=placed)
key = jax.eval_shape(lambda: jax.random.key(0))
models.generate.lower(params, config, prompts, lengths, key, 64, eos_ids=(1,)).compile()
print("compiled")
