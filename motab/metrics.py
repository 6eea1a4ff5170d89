"""One batch of trajectories in numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from distill.losses.divergence import DIVERGENCES
from distill.trajectories import Source, Trajectories
from models.decoding.decode import pick
from motab.rollout_state import Record

SOURCES = (Source.STUDENT, Source.FLAWED, Source.REVISION, Source.TEACHER)


def rollout_metrics(trajectories: Trajectories, record: Record) -> dict[str, jax.Array]:
    """Scalars of a rollout.

    Returns:
      `backtracked`, `dropped`, `truncated`: shares of rows with a correction, with a breach that
      left no room for one, and without an end of sequence. `breach_step`, `backtrack_depth`: means
      over breached rows, in steps. `value_mean`, `boundary_mean`: over judged steps. `nll_teacher`,
      `reverse_kl`, `forward_kl`, `jsd`: means over the student's tokens, in nats. `tokens_*`:
      counts by source; `tokens` all of them. `rows`: trajectories.
    """
    breached = record.breach_B >= 0
    rows = record.breach_B.shape[0]
    steps = jnp.arange(record.values_BxL.shape[1]) < record.num_steps_B[:, None]
    source = trajectories.source_BxT
    counts = {f"tokens_{s.name.lower()}": jnp.sum(source == s) for s in SOURCES}

    def mean(x: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)

    ends = jnp.where(record.num_steps_B > 0, pick(record.step_ends_BxL, record.num_steps_B - 1), 0)
    judged = jnp.arange(record.steps_BxN.shape[1]) < ends[:, None]
    return {
        "backtracked": jnp.mean(breached & ~record.dropped_B),
        "dropped": jnp.mean(record.dropped_B),
        "truncated": jnp.mean(record.truncated_B),
        "breach_step": mean(record.breach_B, breached),
        "backtrack_depth": mean(record.breach_B - record.root_B, breached),
        "value_mean": mean(record.values_BxL, steps),
        "boundary_mean": mean(record.boundaries_BxL, steps),
        "nll_teacher": mean(record.scores.nll, judged),
        **{name: mean(getattr(record.scores, name), judged) for name in DIVERGENCES},
        **counts,
        "tokens": sum(counts.values(), jnp.zeros((), jnp.int32)),
        "rows": jnp.asarray(rows),
    }
