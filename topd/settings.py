"""TOPD's hyper-parameters, checked once, before any work.

The paper (arXiv 2606.00305) publishes the window of 50 tokens and the share of candidates; every
other default is ours.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from models.checks import Count, Share, Temperature, above, at_least, between, check, one_of


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """Where windows are opened, and how both models continue there.

    Attributes:
      tokens: K, the length of a window.
      per_rollout: W, most windows of a rollout: what is static.
      candidates: what a position's loss is: `teacher_nll`, -log q of the student's token; or
        `divergence`, that of the OPD loss.
      share: of a rollout's response tokens, those with the highest loss are candidates; at least
        one is, and at most `per_rollout` are.
      student: the student's window is written anew (`regenerate`), or is what its rollout holds
        (`reuse`), which saves decoding.
      temperature: of both models' windows; 0 is greedy.
      low_rows: rows of a batch, from the first, in which one window is opened at a low-loss
        position, for the running buffer; 0 for all.
      low_quantile: that position is drawn among those whose loss is at most this quantile of their
        rollout's.
    """

    tokens: Count = 50
    per_rollout: Count = 4
    candidates: Annotated[str, one_of("teacher_nll", "divergence")] = "teacher_nll"
    share: Annotated[float, between(0, 1, "(]")] = 0.0225
    student: Annotated[str, one_of("regenerate", "reuse")] = "regenerate"
    temperature: Temperature = 0.0
    low_rows: Annotated[int, at_least(0, "all rows")] = 0
    low_quantile: Annotated[float, between(0, 1, "(]")] = 0.5

    def __post_init__(self):
        check(self, "windows")


@dataclasses.dataclass(frozen=True)
class TransportSettings:
    """How far two windows are apart: D_OT = <G, C>.

    Attributes:
      embedding: a token is its row of the student's input table (`static`), or the student's last
        hidden state at it (`contextual`), whoever wrote it. Both are normalized to length 1.
      cost: `cosine`, 1 - cos; or `euclidean`, the distance sqrt(2 - 2 cos).
      position_penalty: what is added per share of a window by which two tokens are displaced: an
        order is seen only with it.
      marginals: a window's tokens weigh the same (`uniform`), or linearly less the later they are
        (`decaying`).
      epsilon: weight of the plan's entropy, in units of the cost.
      iterations: of Sinkhorn's algorithm, in the log domain.
    """

    embedding: Annotated[str, one_of("static", "contextual")] = "static"
    cost: Annotated[str, one_of("cosine", "euclidean")] = "cosine"
    position_penalty: Annotated[float, at_least(0, "off")] = 0.0
    marginals: Annotated[str, one_of("uniform", "decaying")] = "uniform"
    epsilon: Annotated[float, above(0)] = 0.05
    iterations: Count = 100

    def __post_init__(self):
        check(self, "transport")


@dataclasses.dataclass(frozen=True)
class GuidanceSettings:
    """What windows do to the loss.

    Attributes:
      objective: `trajectory`, L_OPD + lambda L_traj; or, as in the paper's analysis, L_OPD with the
        loss capped at high-loss positions of the lowest OT (`cap_low`, false alarms), or of the
        highest (`cap_high`, the control).
      lambda_traj: lambda.
      rule: which candidates are guided: those with an OT above the threshold (`transport`), or all
        (`loss`).
      high_quantile: of the OT at low-loss positions; the threshold.
      buffer: OT values at low-loss positions that are kept, the latest ones.
      min_buffer: fewer of them make no threshold, and nothing is guided.
      least_distance: a threshold below it is raised to it: equal windows are at a distance of
        rounding and entropy, and where most low-loss ones are equal that would be the threshold.
      plan: targets come from the plan G (`transport`), or from G = I / K (`identity`): the
        teacher's i-th token at the i-th state.
      context: the states c_i are those of the student's window, or of the teacher's.
      rows: total of a target's row: `one`, a distribution; `scaled`, that of K G, which differs
        only where marginals are not uniform; or `plan`, that of G itself.
      reduction: KLs of a window are averaged over its positions (`mean`) or summed (`sum`); and
        either way averaged over the guided windows.
      cap_share: of a batch's candidates, those that are capped.
      cap: a capped loss keeps its gradient, scaled down with it (`scale`), or has none (`clip`).
      gradient_ratio_every: updates between two measurements of |lambda grad L_traj| / |grad L_OPD|,
        which cost a gradient of each; 0 for never.
    """

    objective: Annotated[str, one_of("trajectory", "cap_low", "cap_high")] = "trajectory"
    lambda_traj: Annotated[float, at_least(0)] = 0.1
    rule: Annotated[str, one_of("transport", "loss")] = "transport"
    high_quantile: Share = 0.75
    buffer: Count = 512
    min_buffer: Count = 16
    least_distance: Annotated[float, at_least(0)] = 1e-3
    plan: Annotated[str, one_of("transport", "identity")] = "transport"
    context: Annotated[str, one_of("student", "teacher")] = "student"
    rows: Annotated[str, one_of("one", "scaled", "plan")] = "one"
    reduction: Annotated[str, one_of("mean", "sum")] = "mean"
    cap_share: Share = 0.3
    cap: Annotated[str, one_of("scale", "clip")] = "scale"
    gradient_ratio_every: Annotated[int, at_least(0, "never")] = 0

    def __post_init__(self):
        check(self, "guidance")
        if self.min_buffer > self.buffer:
            raise ValueError(
                f"guidance.min_buffer={self.min_buffer} exceeds guidance.buffer={self.buffer}: "
                "there would never be a threshold."
            )
        if self.objective != "trajectory" and self.gradient_ratio_every:
            raise ValueError(
                f"guidance.gradient_ratio_every={self.gradient_ratio_every} with "
                f"guidance.objective={self.objective!r}: there is no L_traj. Set it to 0."
            )

    @property
    def needs_low_losses(self) -> bool:
        """Whether anything is compared to low-loss positions."""
        return self.objective == "trajectory" and self.rule == "transport"
