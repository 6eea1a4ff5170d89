"""Compiles every kind of program for four chips of a TPU v5e, without one. Prints their names.

Ahead of time, against a description of the topology: needs libtpu (`pip install -e ".[tpu]"`).
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

import models
import motab
from distill.losses.teacher_scores import score_trajectories
from distill.steps.table import make_step_table
from distill.train.sharding import AXES, batch_sharding, state_shardings, whole
from distill.train.state import create_state
from distill.trajectories import Trajectories
from models.attention import choose_kernel, splash_attention
from models.decoding.slots import Rows

VOCAB, ROWS, WIDTH, PROMPT = 2048, 8, 320, 64
KERNEL = "tpu_custom_call"

chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(np.array(chips).reshape(1, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)
rows, everywhere = batch_sharding(mesh), whole(mesh)
student = models.ModelConfig(
    "qwen3", VOCAB, 256, 512, 2, 4, 2, 128, qk_norm=True, dtype="bfloat16", mesh=mesh
)
teacher = student.replace(hidden_size=384, intermediate_size=768, num_layers=3)
params, teacher_params = models.abstract(student), models.abstract(teacher, "bfloat16")
settings = motab.MotabSettings(
    max_total=WIDTH - PROMPT, max_correction=64, min_correction=8, max_step_tokens=64, chunk=16,
    safe_loss="reverse_kl",
)  # fmt: skip
text = [b""] + [bytes([32 + i % 96]) for i in range(VOCAB - 1)]
slots = motab.make_slots(
    student, teacher, settings, make_step_table(text, ".\n\n"), (3, 4), (1, 5), (0,)
)


def array(dtype, *shape, sharding=rows):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def placed(function, *inputs):
    """Shapes of what a function gives, placed as the compiler does."""
    compiled = jax.jit(function).lower(*inputs).compile()
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(function, *inputs), compiled.output_shardings,
    )  # fmt: skip


def attention():
    """The kernel alone, forward and backward."""

    def loss(q, k, v, segments):
        return jnp.sum(splash_attention(q, k, v, segments, student).astype(jnp.float32) ** 2)

    heads = [array(jnp.bfloat16, ROWS, WIDTH, n, 128) for n in (4, 2, 2)]
    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*heads, array(jnp.int32, ROWS, WIDTH))


def train_step(micro_batches):
    optimizer = optax.adamw(1e-3)
    state = jax.eval_shape(lambda p: create_state(p, optimizer), params)
    places = state_shardings(state, optimizer, student, mesh)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, places
    )
    i, f = array(jnp.int32, ROWS, WIDTH), array(jnp.float32, ROWS, WIDTH)
    step = motab.make_train_step(student, teacher, settings, optimizer, micro_batches)
    return jax.jit(step, out_shardings=(places, everywhere), donate_argnums=0).lower(
        state, teacher_params, Trajectories(i, i, f, f, i, i)
    )


def scoring():
    """Teacher's scores that are kept."""
    score = functools.partial(score_trajectories, config=teacher, top_k=8, vocab_size=VOCAB)
    read = Trajectories(*[array(jnp.int32, ROWS, WIDTH)] * 6)

    def run(params, read):
        return score(params, trajectories=read)

    return jax.jit(run, out_shardings=rows).lower(teacher_params, read)


def rollout(program):
    """A part of MOTAB's rollout as slots run it: both models, the monitor, the correction."""
    both = placed(slots.prepare, (params, teacher_params))
    if program == "prefill":

        def prefill(params, prompts, lengths):
            return slots.prefill(params, prompts, lengths, slots.init_caches(ROWS, PROMPT))

        inputs = array(jnp.int32, ROWS, PROMPT), array(jnp.int32, ROWS)
        return jax.jit(prefill).lower(both, *inputs)

    def begin(prompts):
        ones = jnp.ones(ROWS, jnp.int32)
        keys = jnp.broadcast_to(jax.random.key(0), (ROWS,))
        state = slots.begin(slots.init_caches(ROWS, WIDTH), Rows(prompts, ones, keys, ones, ones))
        return slots.pinned(state)

    state = placed(begin, array(jnp.int32, ROWS, PROMPT))

    def chunk(params, state):
        return slots.pinned(slots.chunk(params, state))

    if program == "chunk":
        return jax.jit(chunk, donate_argnums=1).lower(both, state)
    return jax.jit(slots.finish).lower(state)


def sampling():
    key = jax.eval_shape(lambda: jax.random.key(0))
    prompts, lengths = array(jnp.int32, ROWS, PROMPT), array(jnp.int32, ROWS)
    return models.generate.lower(params, student, prompts, lengths, key, 64, eos_ids=(1,))


PROGRAMS = {
    "attention kernel": attention,
    "train step": functools.partial(train_step, 1),
    "train step in micro-batches": functools.partial(train_step, 2),
    "scoring pass": scoring,
    "prefill": functools.partial(rollout, "prefill"),
    "rollout's chunk": functools.partial(rollout, "chunk"),
    "rollout's end": functools.partial(rollout, "finish"),
    "sampling": sampling,
}

assert choose_kernel(student, WIDTH - 1) == choose_kernel(teacher, WIDTH - 1) == "splash"
for name, lower in PROGRAMS.items():
    program = lower().compile()
    kernels = program.as_text().count(KERNEL)
    assert bool(kernels) == (name in ("attention kernel", "scoring pass") or "train" in name), name
    megabytes = program.memory_analysis().temp_size_in_bytes / 1e6
    print(f"{name}: {kernels} kernels, {megabytes:.1f} MB of temporaries on a chip")
print("compiled")
