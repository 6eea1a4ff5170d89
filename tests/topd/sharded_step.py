"""Run in a process with 8 fake devices: TOPD's probe and step on a 2x2x2 mesh against one device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import models
from distill.losses.signal import Signal
from distill.rollouts.assembly import assemble
from distill.train.sharding import batch_sharding, make_mesh, state_shardings
from distill.train.state import create_state
from distill.trajectories import Source, Trajectories
from topd import (
    GuidanceSettings,
    ProbedBatch,
    TransportSettings,
    WindowSettings,
    init_method_state,
    make_probe,
    make_train_step,
)

VOCAB, PROMPT, RESPONSE, ROWS, STEPS = 32, 5, 9, 8, 3
WINDOWS = WindowSettings(tokens=4, per_rollout=2, share=0.3, low_rows=4)
TRANSPORT = TransportSettings(embedding="contextual")
GUIDANCE = GuidanceSettings(lambda_traj=0.5, buffer=8, min_buffer=3, gradient_ratio_every=2)


def rollouts(seed: int) -> Trajectories:
    rng = np.random.default_rng(seed)
    prompts = rng.integers(1, PROMPT + 1, ROWS)
    responses = np.array([RESPONSE, 0, *rng.integers(1, RESPONSE + 1, ROWS - 2)])
    text = rng.integers(1, VOCAB, (ROWS, PROMPT + RESPONSE))
    return assemble(
        jnp.asarray(text), jnp.full(text.shape, Source.STUDENT), jnp.asarray(prompts),
        jnp.asarray(prompts + responses), "divergence",
    )  # fmt: skip


def close(a, b, name: str) -> None:
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        where = name + jax.tree_util.keystr(path)
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype, where
        if x.dtype.kind != "f":
            np.testing.assert_array_equal(x, y, where)
            continue
        error = np.abs(x - y).max() / max(np.abs(x).max(), 1e-30)
        assert error < 1e-5, (where, error)


def main() -> None:
    assert len(jax.devices()) == 8
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    assert mesh is not None
    plain = models.ModelConfig("qwen3", VOCAB, 32, 64, 2, 4, 2, 8, qk_norm=True)
    params = models.init(jax.random.key(0), plain)
    params = {**params, "head": params["head"] * 4}  # so that contexts matter
    wide = models.ModelConfig("llama", VOCAB + 4, 16, 32, 1, 4, 2, 8)
    teacher = models.init(jax.random.key(1), wide)
    teacher = {**teacher, "head": teacher["head"] * 4}
    # The momentum after the first step is the gradient itself.
    # With a rate of .3 rounding grew to 3e-5 in the third gradients.
    optimizer = optax.sgd(0.03, momentum=0.9)

    def run(config: models.ModelConfig, teacher_config: models.ModelConfig, parts: int = 1):
        step = make_train_step(config, teacher_config, GUIDANCE, Signal(), optimizer, parts)
        probe = jax.jit(
            make_probe(config, teacher_config, WINDOWS, TRANSPORT, GUIDANCE, Signal(), (0,), VOCAB)
        )
        state = create_state(params, optimizer, init_method_state(GUIDANCE))
        places, rows, theirs = None, None, teacher
        if config.mesh is not None:
            places = state_shardings(state, optimizer, config, config.mesh)
            rows = batch_sharding(config.mesh)
            state = jax.device_put(state, places)
            theirs = jax.device_put(teacher, models.shardings(teacher_config, config.mesh))
        jitted = jax.jit(step, out_shardings=None if places is None else (places, None))
        history = []
        for seed in range(STEPS):
            inputs = jax.device_put((rollouts(seed), jnp.arange(ROWS)), rows)
            found = probe(state.params, theirs, *inputs, jax.random.key(seed))
            state, metrics = jitted(state, theirs, ProbedBatch(inputs[0], found))
            history.append(jax.device_get((found, state, metrics)))
        return history, state

    single, _ = run(plain, wide)
    for parts in (1, 2):
        several, state = run(plain.replace(mesh=mesh), wide.replace(mesh=mesh), parts)
        for k, ((p, a, m), (q, b, n)) in enumerate(zip(single, several, strict=True)):
            # What stands in padding means nothing.
            there = np.asarray(rollouts(k).source_BxT[:, :-1] != Source.PADDING)[..., None]
            p, q = (x.replace(teacher_hidden_BxTxD=x.teacher_hidden_BxTxD * there) for x in (p, q))
            close(p, q, f"step {k}, probe: ")
            close(a.opt_state, b.opt_state, f"step {k}, gradients and momentum: ")
            close(a.params, b.params, f"step {k}, parameters: ")
            close(a.method_state, b.method_state, f"step {k}, method: ")
            close(m, n, f"step {k}, metrics: ")
    guided = [m["guided_windows"] for _, _, m in single]
    assert max(guided) > 0 and sum(guided) < sum(m["windows"] for _, _, m in single), guided

    gate = state.params["layers"]["gate"]
    assert gate.sharding.spec == PartitionSpec(None, "fsdp", "tensor"), gate.sharding
    assert gate.addressable_shards[0].data.size * 4 == gate.size
    for leaf in jax.tree.leaves(state.method_state):
        assert leaf.sharding.is_fully_replicated


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    main()
    print("equal")
