"""What slots gain over static batches, as `experiments.bench_engine` measures it.

One model samples responses of log-normal lengths (p95 / p50 = 5), which each row's own budget
forces: no text ends by itself. Both ways write the same tokens with the same parts of a rollout;
static batches take rows in the order of the queue, each until its longest row ends. Compilation is
left out: both ways run before they are timed.
"""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import models
from experiments.rollouts.engine import Engine, Request, key_data, programs
from models.decoding.generate import make_slots
from models.decoding.sampling import Sampling
from models.decoding.slots import Rows, Slots, run

# The 95 % quantile of the standard normal distribution.
_Z95 = 1.6449

TINY = models.ModelConfig(
    family="qwen3",
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=768,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    qk_norm=True,
)


def lengths(rows: int, median: float, longest: int, skew: float, seed: int) -> np.ndarray:
    """Log-normal lengths in tokens, 1 to `longest`, whose p95 is `skew` times their median."""
    sigma = math.log(skew) / _Z95
    drawn = np.random.default_rng(seed).lognormal(math.log(median), sigma, rows)
    return np.clip(np.round(drawn), 1, longest).astype(np.int32)


def measure(
    rows: int = 192,
    slots: int = 16,
    prompt: int = 64,
    median: float = 40,
    longest: int = 256,
    skew: float = 5.0,
    config: models.ModelConfig = TINY,
    seed: int = 0,
) -> dict[str, Any]:
    """Tokens per second of the engine and of static batches, in one process.

    Args:
      rows, slots: in the queue, and written at the same time; a static batch has `slots` rows.
      prompt: tokens of every prompt; all prompts differ.
      median, longest, skew: of the response lengths, see `lengths`.

    Returns:
      `occupancy`, `static_occupancy`: shares of the decode steps that wrote a token that was asked
      for. `tokens_per_second`, `static_tokens_per_second`, `speedup`, their ratio. `tokens`,
      `p50`, `p95`; `equal`, the share of the rows whose tokens are the same both ways; and
      `recompiled`, programs compiled while time was taken.
    """
    params = jax.jit(models.init, static_argnums=1)(jax.random.key(seed), config)
    budgets = lengths(rows, median, longest, skew, seed)
    generator = np.random.default_rng(seed + 1)
    prompts = generator.integers(1, config.vocab_size, (rows, prompt), np.int32)
    # The end of sequence is an id that no text can contain.
    parts = make_slots(config, Sampling(), longest, (config.vocab_size,))
    key = jax.random.key(seed)
    requests = [
        Request(tuple(map(int, prompts[i])), i, key_data(key), i, int(budgets[i]))
        for i in range(rows)
    ]

    def through_slots() -> tuple[Engine, dict[int, np.ndarray]]:
        engine = Engine(parts, slots, prompt)
        written: dict[int, np.ndarray] = {}
        for out, done in engine.run(params, requests):
            for b, request in enumerate(done):
                written[request.payload] = out.tokens_BxN[b, : out.lengths_B[b]]
        return engine, written

    through_slots()
    compiled = programs()
    engine, ours = through_slots()
    recompiled = programs() - compiled
    batches = [slice(start, start + slots) for start in range(0, rows, slots)]
    static = jax.jit(run, static_argnums=0)

    def in_batches() -> dict[int, np.ndarray]:
        written = {}
        for batch in batches:
            out = jax.device_get(static(parts, params, _rows(prompts, budgets, key, batch)))
            for b, i in enumerate(range(rows)[batch]):
                written[i] = out.tokens_BxN[b, : out.lengths_B[b]]
        return written

    static(parts, params, _rows(prompts, budgets, key, batches[0]))
    if rows % slots:
        static(parts, params, _rows(prompts, budgets, key, batches[-1]))
    started = time.monotonic()
    theirs = in_batches()
    static_seconds = time.monotonic() - started
    tokens = int(budgets.sum())
    assert tokens == engine.report.tokens
    return {
        "occupancy": engine.report.occupancy,
        "static_occupancy": tokens / _static_steps(parts, budgets, batches),
        "tokens_per_second": tokens / engine.report.seconds,
        "static_tokens_per_second": tokens / static_seconds,
        "speedup": static_seconds / engine.report.seconds,
        "tokens": tokens,
        "p50": float(np.quantile(budgets, 0.5)),
        "p95": float(np.quantile(budgets, 0.95)),
        "equal": float(np.mean([np.array_equal(ours[i], theirs[i]) for i in range(rows)])),
        "recompiled": recompiled,
    }


def _rows(prompts: np.ndarray, budgets: np.ndarray, key: jax.Array, batch: slice) -> Rows:
    ids = jnp.arange(len(prompts))[batch]
    widths = jnp.full(ids.shape, prompts.shape[1])
    keys = jnp.broadcast_to(key, ids.shape)
    return Rows(jnp.asarray(prompts[batch]), widths, keys, ids, jnp.asarray(budgets[batch]))


def _static_steps(parts: Slots, budgets: np.ndarray, batches: list[slice]) -> int:
    chunk = parts.chunk_tokens
    return sum(len(budgets[b]) * -(-int(budgets[b].max()) // chunk) * chunk for b in batches)
