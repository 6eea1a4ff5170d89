"""What recipes share in which the student writes alone, and online."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill.roles import Role
from distill.rollouts.one_writer import make_slots
from distill.train.update import Metrics
from distill.trajectories import Source, Trajectories
from experiments.pair.pair import Pair
from experiments.rollouts.policies import one_writer, write
from experiments.rollouts.recipe import Recipe
from models.decoding.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How the student writes: see `models.decoding.sampling.Sampling`; `max_total` in tokens."""

    student_temperature: float
    student_top_p: float
    student_top_k: int
    max_total: int

    def __post_init__(self):
        for name, fits, bounds in (
            ("student_temperature", self.student_temperature >= 0, "0 (greedy) or more"),
            ("student_top_p", 0 < self.student_top_p <= 1, "in (0, 1]"),
            ("student_top_k", self.student_top_k >= 0, "0 (off) or more"),
            ("max_total", self.max_total >= 1, "at least 1"),
        ):
            if not fits:
                raise ValueError(f"rollout.{name}={getattr(self, name)} must be {bounds}.")

    @property
    def sampling(self) -> Sampling:
        """Without a bound on the vocabulary."""
        return Sampling(self.student_temperature, self.student_top_p, self.student_top_k)


class OwnSamples(Recipe):
    """The student's own samples; the record says which rows [B] are `truncated`.

    Args:
      sampling, max_total, train: as in `distill.rollouts.one_writer.make_rollout`.
    """

    sources = (Source.STUDENT,)

    def __init__(self, config: Any, pair: Pair, sampling: Sampling, max_total: int, train: str):
        super().__init__(config, pair)
        self.max_total = max_total
        writing = make_slots(
            pair.student_config,
            sampling,
            max_total,
            pair.eos_ids,
            vocab_size=pair.vocab_size,
            train=train,
        )
        self.slots = (one_writer(writing, Role.STUDENT, pair.eos_ids),)

    def rollout(self, *inputs: Any) -> tuple[Trajectories, dict[str, jax.Array]]:
        """The student's text; the record says which rows [B] are `truncated`."""
        return write(self.slots[0], *inputs)

    def rollout_metrics(self, trajectories: Trajectories, record: dict[str, Any]) -> Metrics:
        """`truncated`, a share of rows; tokens."""
        tokens = jnp.sum(trajectories.source_BxT == Source.STUDENT)
        return {
            "truncated": jnp.mean(record["truncated"]),
            "tokens_student": tokens,
            "tokens": tokens,
            "rows": jnp.asarray(trajectories.source_BxT.shape[0]),
        }

    def row(self, record: dict[str, Any], b: int) -> dict[str, Any]:
        """Whether the row is `truncated`."""
        return {"truncated": bool(record["truncated"][b])}

    def row_metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`truncated`, a share of the rows."""
        return {"truncated": np.mean([r["truncated"] for r in rows])}
