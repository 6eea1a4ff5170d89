"""The distillation step, on given tokens or on a rollout of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.rollouts.assembly import assemble
from distill.rollouts.one_writer import make_rollout
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.state import create_state
from distill.train.update import make_train_step
from distill.trajectories import Source, Trajectories
from experiments.bench.ours import roofline
from experiments.bench.peers.bench_protocol import Session
from models.decoding.sampling import Sampling


def measure(session: Session) -> None:
    """Full-vocabulary reverse KL on the completion, clipping, AdamW; on-policy a rollout before."""
    request = session.request
    shape = request["train"]
    student_config, params = models.load_pretrained(request["student"], dtype="float32")
    student_config = student_config.replace(dtype=request["dtype"])
    teacher_config, teacher = models.load_pretrained(request["teacher"], dtype=request["dtype"])
    optimizer = make_optimizer(
        OptimizerSettings(schedule="constant", decay="all", **request["optimizer"]), 10**6
    )

    def loss_fn(params, teacher, trajectories):
        return trajectory_loss(
            params, student_config, trajectories, teacher, teacher_config, Signal("reverse_kl")
        )

    step = jax.jit(make_train_step(loss_fn, optimizer), donate_argnums=0)
    state = jax.jit(lambda params: create_state(params, optimizer))(params)
    del params
    length = shape["prompt"] + shape["new"]
    given = _given(session, shape)
    prompts = jnp.asarray(session.tokens(shape["batch"], shape["prompt"]), jnp.int32)
    lengths = jnp.full(shape["batch"], shape["prompt"], jnp.int32)
    # The end of sequence is an id that no text can contain, as for the others.
    never = (student_config.vocab_size,)
    rollout = jax.jit(make_rollout(student_config, Sampling(), shape["new"], never))
    key = jax.random.key(request["seed"])
    losses: list[float] = []

    def repeat() -> None:
        nonlocal state
        trajectories = given
        if request["what"] == "onpolicy":
            noise = jax.random.fold_in(key, len(losses))
            ids = jnp.arange(shape["batch"])
            trajectories = rollout(state.params, prompts, lengths, ids, noise)
        state, metrics = step(state, teacher, trajectories)
        losses.append(float(metrics["loss"]))
        jax.block_until_ready(state)

    session.measure(repeat)
    session.facts |= {"tokens": shape["batch"] * length, "first_loss": losses[0]}
    if jax.default_backend() != "cpu" and request["what"] == "train":
        seconds = roofline.fastest(repeat)
        rate = roofline.matmul_rate(request["dtype"])
        flops = roofline.train_flops(student_config, **shape)
        session.facts |= {
            "step_flops": flops,
            "matmul_rate": rate,
            "of_matmul_rate": flops / seconds / rate,
        }


def _given(session: Session, shape: dict[str, int]) -> Trajectories:
    """Trajectories of random tokens that all train by the divergence on the completion."""
    length = shape["prompt"] + shape["new"]
    tokens = jnp.asarray(session.tokens(shape["batch"], length), jnp.int32)
    full = jnp.full(shape["batch"], length, jnp.int32)
    prompt = jnp.full(shape["batch"], shape["prompt"], jnp.int32)
    return assemble(tokens, jnp.full_like(tokens, Source.STUDENT), prompt, full, "divergence")
