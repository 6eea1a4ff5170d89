"""`models.generate`: sampling at temperature 1, every completion at its full length."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

import models
from experiments.bench.ours import roofline
from experiments.bench.peers.bench_protocol import Session


def measure(session: Session) -> None:
    """Decodes `decode.new` tokens behind `decode.batch` prompts of `decode.prompt` tokens."""
    shape = session.request["decode"]
    config, params = models.load_pretrained(
        session.request["student"], dtype=session.request["dtype"], stacked=False
    )
    prompts = jnp.asarray(session.tokens(shape["batch"], shape["prompt"]), jnp.int32)
    lengths = jnp.full(shape["batch"], shape["prompt"], jnp.int32)

    def generate(new: int = shape["new"]) -> None:
        keys.append(jax.random.fold_in(jax.random.key(session.request["seed"]), len(keys)))
        out = models.generate(params, config, prompts, lengths, keys[-1], new)
        jax.block_until_ready(out)

    keys: list[jax.Array] = []
    session.measure(generate)
    session.facts["tokens"] = shape["batch"] * shape["new"]
    if jax.default_backend() != "cpu":
        prefill, whole = (
            roofline.fastest(functools.partial(generate, n)) for n in (1, shape["new"])
        )
        moved = roofline.decode_bytes(config, **shape)
        bandwidth = roofline.copy_bandwidth()
        session.facts |= {
            "prefill_seconds": prefill,
            "decode_bytes": moved,
            "copy_bandwidth": bandwidth,
            "of_bandwidth": moved / (whole - prefill) / bandwidth,
        }
