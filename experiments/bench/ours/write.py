"""Writes the random models that everyone loads, as Hugging Face directories."""

from __future__ import annotations

import jax

import models
from experiments.bench.peers.bench_protocol import Session
from experiments.bench.workloads import MODELS


def measure(session: Session) -> None:
    """Student and teacher have one shape and different weights."""
    request = session.request
    config = MODELS[request["model"]]
    init = jax.jit(models.init, static_argnums=(1, 2))
    for number, role in enumerate(("student", "teacher")):
        params = init(jax.random.key(number), config, "float32")
        models.save_pretrained(params, config, request[role], dtype=request["dtype"])
    session.ready(0.0)
    session.wait()
