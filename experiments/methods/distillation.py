"""The published baselines as recipes: a policy that writes the text, and a loss on all of it.

`rollout` in a config says who writes (`policy`) and what response tokens train for (`loss`):

    teacher   teacher's traces; with likelihood, SFT on them rft       the student's own samples,
    kept where the answer is right (offline) imitkd    a step is the teacher's with probability
    `teacher_share`, else the student's skd       the student's steps, rewritten by the teacher
    unless pbar_T > skd_beta pbar_S student   the student's own samples: on-policy distillation, OPD
    (online) gkd       a sample is the student's with probability `on_policy_share`, else the
    teacher's (online)

Offline (`synthesis.mode`), `trajectories_per_prompt` texts of a prompt are sampled once, with the
initial weights, and are the same in every epoch, as in a data set. Online a prompt gets fresh ones
whenever it comes up, GKD's teacher included. With `loss = "divergence"`, `signal` holds the fields
of `distill.losses.signal.Signal`; with `likelihood` there is no such section.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import distill.train.update
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import LossSums, trajectory_loss
from distill.train.update import Metrics
from distill.trajectories import Source, Trajectories
from experiments.config.method_sections import PolicySettings
from experiments.config.tree import DistillationConfig, RoundSettings
from experiments.grading import verdict
from experiments.pair.pair import Pair
from experiments.rollouts.policies import SOURCES, make_policy
from experiments.rollouts.recipe import Recipe, TrainStep
from experiments.tasks.example import Example
from mixtures.mixing import on_policy_rows
from models.parameters import Params


class DistillationRecipe(Recipe):
    """One policy, one loss."""

    def __init__(
        self, pair: Pair, rounds: RoundSettings, rollout: PolicySettings, signal: Signal | None
    ):
        super().__init__(pair, rounds)
        self.signal = signal
        self.policy, self._share = rollout.policy, rollout.on_policy_share
        self.sources = SOURCES.get(self.policy, (Source.STUDENT, Source.TEACHER))
        self.selects = self.needs_answer = self.policy == "rft"
        self._write, self.slots = make_policy(rollout, pair)

    @classmethod
    def from_config(cls, config: DistillationConfig, pair: Pair) -> DistillationRecipe:
        """The recipe of `config.rollout` and `config.signal`."""
        return cls(pair, config.rounds, config.rollout, config.signal)

    def writers(self, sample_ids: np.ndarray, key: jax.Array) -> np.ndarray:
        """GKD's coins: 0 the student, 1 the teacher."""
        if len(self.slots) == 1:
            return super().writers(sample_ids, key)
        return 1 - np.asarray(on_policy_rows(self._share, key, jnp.asarray(sample_ids)), np.int32)

    def rollout(self, *inputs: Any) -> tuple[Trajectories, dict[str, Any]]:
        """The policy's text; the record are arrays [B]."""
        return self._write(*inputs)

    def rollout_metrics(self, trajectories: Trajectories, record: dict[str, Any]) -> Metrics:
        """`truncated`, of rows; SKD's `accepted`, of the student's steps; tokens."""
        counts = {
            f"tokens_{s.name.lower()}": jnp.sum(trajectories.source_BxT == s) for s in self.sources
        }
        shares = {"truncated": jnp.mean(record["truncated"])}
        if self.policy == "skd":
            accepted, rejected = jnp.sum(record["accepted"]), jnp.sum(record["rejected"])
            shares["accepted"] = accepted / jnp.maximum(accepted + rejected, 1)
        rows = jnp.asarray(trajectories.source_BxT.shape[0])
        return {
            **shares,
            **counts,
            "tokens": sum(counts.values(), jnp.zeros((), int)),
            "rows": rows,
        }

    def train_step(
        self, optimizer: optax.GradientTransformation, micro_batches: int = 1
    ) -> TrainStep:
        """Likelihood, or the signal's divergence to the teacher, over all response tokens."""

        def loss_fn(params: Params, teacher_params: Any, trajectories: Trajectories) -> LossSums:
            return trajectory_loss(
                params,
                self.pair.student_config,
                trajectories,
                teacher_params,
                self.pair.teacher_config,
                self.signal,
            )

        return distill.train.update.make_train_step(
            loss_fn, optimizer, self.pair.student_config, micro_batches
        )

    def row(self, record: dict[str, Any], b: int) -> dict[str, Any]:
        """The record's numbers."""
        return {name: np.asarray(x)[b].item() for name, x in record.items()}

    def row_metrics(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`truncated`, and SKD's `accepted`."""
        shares = {"truncated": np.mean([r["truncated"] for r in rows])}
        if self.policy == "skd":
            accepted, rejected = (sum(r[x] for r in rows) for x in ("accepted", "rejected"))
            shares["accepted"] = accepted / max(accepted + rejected, 1)
        return shares

    def lines(
        self, trajectories: Trajectories, record: Any, examples: Sequence[Example]
    ) -> list[dict[str, Any]]:
        """Lines of a file; RFT takes the weights of what is not `correct`.

        `timed_out`: its comparison ran out of time, so that it counts as wrong.
        """
        lines = super().lines(trajectories, record, examples)
        if self.policy == "rft":
            for line, example in zip(lines, examples, strict=True):
                text = "".join(part["text"] for part in line["readable"]["parts"])
                found = verdict(self.pair.gradable(text), example)
                line["correct"], line["timed_out"] = found.right, found.timed_out
                if not line["correct"]:
                    for name in ("likelihood_weights", "divergence_weights"):
                        line[name] = [0.0] * len(line[name])
        return lines
