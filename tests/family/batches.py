"""Tiny models, batches in groups, and objectives of every method on them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import distill.losses.log_probs
import family.loss
import models
from distill.losses.chunked import Readout
from distill.trajectories import Source, TeacherScores, Trajectories
from family import METHODS, Objective, PlannedBatch, SurrogateSettings

from .drawn import GROUP, settings_of

VOCAB = 13
STUDENT = models.ModelConfig("qwen3", VOCAB, 16, 32, 2, 2, 1, 8, qk_norm=True)
# Its head is wider: distributions run over the ids that both have.
TEACHER = models.ModelConfig("qwen2", 16, 24, 32, 1, 2, 2, 8, qkv_bias=True, tie_embeddings=True)
ENDS = (2,)
# Settings under which every method trains on the batches below.
ACTING: dict[str, dict[str, Any]] = {
    "kdrl": {"beta": 0.3, "beta_min": 0.1, "gate": "response"},
    "hdpo": {"beta": 0.5},
    "rlsd": {"weight": 0.8},
    "eopd": {"threshold": 2.2, "top_k": 3},
    "curve": {"top": 2, "top_weight": 2.0, "first": 2.0, "last": 1.0},
}


def parameters(seed: int = 0) -> list[Any]:
    """Of student, teacher, and an older student; drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def draw(config: models.ModelConfig) -> Any:
        return jax.tree.map(
            lambda a: jnp.asarray(rng.normal(0, 0.4, a.shape), a.dtype), models.abstract(config)
        )

    student, teacher = draw(STUDENT), draw(TEACHER)
    older = jax.tree.map(
        lambda x: x + 0.02 * jnp.asarray(rng.normal(size=x.shape), x.dtype), student
    )
    return [student, teacher, older]


def look_up(monkeypatch: Any) -> list[jax.Array]:
    """Makes models tables [N, V] of logits by the token before: exact, and quick to compile.

    Returns:
      Tables of student, teacher, and an older student.
    """

    def hidden(table: jax.Array, _: Any, tokens: jax.Array, *__: Any) -> jax.Array:
        return jax.nn.one_hot(tokens, table.shape[0], dtype=table.dtype)

    monkeypatch.setattr(models, "forward_hidden", hidden)
    for module in (family.loss, distill.losses.log_probs):
        monkeypatch.setattr(
            module, "readout", lambda table, config, hidden: Readout(hidden, table.T, config)
        )
    rng = np.random.default_rng(0)
    student, teacher, noise = (rng.normal(0, 1, (16, v)) for v in (VOCAB, 16, VOCAB))
    return [jnp.asarray(x, jnp.float32) for x in (student, teacher, student + 0.1 * noise)]


def make(seed: int, rows: int = 2 * GROUP, width: int = 9) -> PlannedBatch:
    """A prompt and a response a row; one response is empty, and one group has no signal."""
    rng = np.random.default_rng(seed)
    prompts, ends = rng.integers(1, 4, rows), rng.integers(5, width + 1, rows)
    ends[rows - 1] = prompts[rows - 1]
    at = np.arange(width)
    present = at < ends[:, None]
    response = present & (at >= prompts[:, None])
    tokens = rng.integers(3, VOCAB, (rows, width)) * present
    tokens[np.arange(rows - 1), ends[:-1] - 1] = ENDS[0]
    rewards = rng.integers(0, 2, rows)
    rewards[:GROUP], rewards[GROUP : 2 * GROUP] = 0, (1, 0, 1)[:GROUP]
    source = np.where(response, Source.STUDENT, np.where(present, Source.PROMPT, Source.PADDING))
    trajectories = Trajectories(
        tokens_BxT=jnp.asarray(tokens, jnp.int32),
        source_BxT=jnp.asarray(source, jnp.int32),
        likelihood_weights_BxT=jnp.asarray(response, jnp.float32),
        divergence_weights_BxT=jnp.zeros((rows, width)),
        positions_BxT=jnp.broadcast_to(jnp.arange(width), (rows, width)),
        segment_ids_BxT=jnp.asarray(present, jnp.int32),
    )
    log_ref = -rng.exponential(1.0, (rows, width)) * response
    return PlannedBatch(
        trajectories,
        rewards_B=jnp.asarray(rewards, jnp.float32),
        log_ref_BxT=jnp.asarray(log_ref, jnp.float32),
    )


def reading(name: str, batch: PlannedBatch) -> PlannedBatch:
    """The batch with what the method reads, and no more."""
    method = METHODS[name]
    return batch.replace(
        rewards_B=batch.rewards_B if method.rewarded else None,
        log_ref_BxT=batch.log_ref_BxT if method.reference else None,
    )


def objective(name: str, fields: dict | None = None, student: Any = STUDENT, teacher: Any = TEACHER, **surrogate: Any) -> Objective:  # fmt: skip
    """Of a method, with settings under which it trains."""
    return Objective(
        student_config=student,
        teacher_config=teacher,
        method=METHODS[name],
        plan=settings_of(name, ACTING.get(name, {}) if fields is None else fields),
        surrogate=SurrogateSettings(**surrogate),
        vocab_size=VOCAB,
        eos_ids=ENDS,
        max_response=6,
    )


def scores(t: Trajectories, sampled_BxT: jax.Array) -> TeacherScores:
    """One number for each token: no others are kept."""
    nothing = jnp.zeros((*sampled_BxT.shape, 0))
    return TeacherScores(
        sampled_BxT, nothing.astype(jnp.int32), nothing, jnp.zeros_like(sampled_BxT)
    )
