"""What recipes share in which the student writes alone, and online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill.roles import Role
from distill.rollouts.one_writer import make_slots
from distill.train.update import Metrics
from distill.trajectories import Source, Trajectories
from experiments.config.tree import RoundSettings
from experiments.data.batches import PromptBatch
from experiments.grading import verdict
from experiments.machine.processes import fetch
from experiments.pair.pair import Pair
from experiments.rollouts.policies import recorded, run_batch
from experiments.rollouts.recipe import Recipe
from experiments.tasks.example import Example
from models.decoding.sampling import Sampling


class OwnSamples(Recipe):
    """The student's own samples; the record says which rows [B] are `truncated`.

    Args:
      sampling, train: as in `distill.rollouts.one_writer.make_rollout`.
    """

    sources = (Source.STUDENT,)

    def __init__(self, pair: Pair, rounds: RoundSettings, sampling: Sampling, train: str):
        super().__init__(pair, rounds)
        writing = make_slots(
            pair.student_config,
            sampling,
            rounds.max_total,
            pair.eos_ids,
            vocab_size=pair.vocab_size,
            train=train,
        )
        self.slots = (recorded(writing, Role.STUDENT, pair.eos_ids),)

    def rollout(self, *inputs: Any) -> tuple[Trajectories, dict[str, jax.Array]]:
        """The student's text; the record says which rows [B] are `truncated`."""
        return run_batch(self.slots[0], *inputs)

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


class GradedSamples(OwnSamples):
    """The student's own samples, graded: 1 where the final answer is right, 0 elsewhere."""

    def rewards(
        self, trajectories: Trajectories, record: Any, batch: PromptBatch, copies: int
    ) -> tuple[np.ndarray, Metrics]:
        """Rewards [B], graded on the host.

        Metrics: `reward`, its mean; `timed_out`, how many answers could not be compared in time and
        so have no reward; `groups_without_signal`, the share of groups whose rewards are equal:
        they carry no advantage, and count in the loss's mean.
        """
        examples = [example for example in batch.examples for _ in range(copies)]
        rows = self.readable(fetch(trajectories), record, examples)
        rewards_B = np.array([row["reward"] for row in rows], np.float32)
        metrics: dict[str, Any] = {
            "reward": np.mean(rewards_B),
            "timed_out": sum(row["timed_out"] for row in rows),
            "groups_without_signal": np.mean(np.ptp(rewards_B.reshape(-1, copies), axis=1) == 0),
        }
        return rewards_B, metrics

    def readable(
        self, trajectories: Trajectories, record: Any, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """Rows with their `reward`, and whether the answer's comparison `timed_out`."""
        rows = super().readable(trajectories, record, examples)
        if not self.needs_answer:
            return rows
        for row, example in zip(rows, examples, strict=True):
            text = "".join(part["text"] for part in row["parts"])
            found = verdict(self.pair.gradable(text), example)
            row["reward"], row["timed_out"] = float(found.right), found.timed_out
        return rows
