"""What compiling costs: the first step of the embedded main job, and a train step by depth."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax

from experiments.bench.peers.bench_protocol import Session, timed

_SHALLOW, _DEEP = 4, 16


def measure(session: Session) -> None:
    """`cold` and `warm` share a directory of compiled programs, which `cold` fills."""
    if session.request["variant"] == "depth":
        _depth(session)
    else:
        _first_step(session)


def _first_step(session: Session) -> None:
    """One batch of synthesis and one update of `configs/motab.py`, once, from loaded modules on."""
    # A directory of its own, as `experiments.machine.compilation` sets up the default one.
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", f"{session.request['scratch']}/compiled")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    from configs import motab
    from experiments.config.read import read_config
    from experiments.config.tree import MotabConfig
    from experiments.methods.motab import MotabRecipe
    from experiments.methods.online import Online
    from experiments.pair.pair import load_pair, start_student

    # Online, a step is a batch's synthesis and an update: the main job's programs.
    config = read_config(motab.get_config("online"))
    assert isinstance(config, MotabConfig)

    def step() -> Any:
        pair = load_pair(config)
        method = Online(config, pair, MotabRecipe.from_config(config, pair))
        state = method.init(start_student(pair, config.seed))
        return jax.block_until_ready(method.step(state, next(method.batches), 0).state)

    seconds = timed(step)
    session.ready(seconds, repetitions=1)  # a process has one first step
    while session.wait():
        session.report(seconds)


def _depth(session: Session) -> None:
    """Seconds to compile the train step of few and of many layers."""
    import jax.numpy as jnp

    import models
    from distill.losses.signal import Signal
    from distill.losses.trajectory_loss import trajectory_loss
    from distill.rollouts.assembly import assemble
    from distill.train.optimizer import OptimizerSettings, make_optimizer
    from distill.train.state import create_state
    from distill.train.update import make_train_step
    from distill.trajectories import Source
    from experiments.bench.workloads import MODELS

    optimizer = make_optimizer(OptimizerSettings(), 100)
    tokens = jnp.ones((2, 32), jnp.int32)
    lengths = jnp.full(2, 32)
    rows = assemble(
        tokens, jnp.full_like(tokens, Source.STUDENT), lengths // 2, lengths, "divergence"
    )

    def compile_step(layers: int) -> None:
        config = MODELS["micro"].replace(num_layers=layers)

        def loss_fn(params, teacher, rows):
            return trajectory_loss(params, config, rows, teacher, config, Signal("reverse_kl"))

        params = models.abstract(config)
        state = jax.eval_shape(lambda p: create_state(p, optimizer), params)
        jax.jit(make_train_step(loss_fn, optimizer)).lower(state, params, rows).compile()

    compile_step(1)
    session.ready(0.0)
    ratios = []
    while session.wait():
        started = time.perf_counter()
        shallow, deep = (timed(functools.partial(compile_step, n)) for n in (_SHALLOW, _DEEP))
        ratios.append(deep / shallow)
        session.report(time.perf_counter() - started)
    session.facts["depth_ratio"] = ratios
