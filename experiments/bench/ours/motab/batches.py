"""The backtracking rollout over all prompts: through slots, or in static batches."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from distill.trajectories import Source
from experiments.bench.ours.motab.setup import Setup, make_setup
from experiments.bench.peers.bench_protocol import Session
from experiments.rollouts.engine import Engine, Request, key_data


def measure(session: Session) -> None:
    """As many slots as a static batch has rows."""
    setup = make_setup(session)
    out: list[tuple[Any, Any]] = []
    if session.request["variant"] == "static batches":
        rollout = setup.rollout()

        def repeat() -> None:
            out[:] = jax.device_get([rollout(*b) for b in setup.batches(setup.shape["batch"])])

    else:
        engine = Engine(setup.slots(), setup.shape["batch"], setup.shape["prompt"])
        requests = _requests(setup)

        def repeat() -> None:
            out[:] = [rows for rows, _ in engine.run((setup.student, setup.teacher), requests)]

    session.measure(repeat)
    source = np.concatenate([np.asarray(t.source_BxT) for t, _ in out])
    lengths = np.sum(source >= Source.STUDENT, axis=1)
    breached = np.concatenate([np.asarray(r.breach_B) for _, r in out]) >= 0
    dropped = np.concatenate([np.asarray(r.dropped_B) for _, r in out])
    session.facts |= {
        "tokens": int(lengths.sum()),
        "corrected": float(np.mean(breached & ~dropped)),
        "teacher_tokens": int(np.sum(source == Source.TEACHER)),
        "p95_over_p50": float(np.quantile(lengths, 0.95) / np.median(lengths)),
    }


def _requests(setup: Setup) -> list[Request]:
    key = key_data(setup.key)
    prompts = [
        tuple(row[:n].tolist()) for row, n in zip(setup.prompts, setup.prompt_lengths, strict=True)
    ]
    return [Request(prompt, i, key) for i, prompt in enumerate(prompts)]
