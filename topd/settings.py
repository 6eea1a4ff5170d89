"""TOPD's hyper-parameters, checked once, before any work.

The paper (arXiv 2606.00305) publishes the window of 50 tokens and the share of candidates; every
other default is ours.
"""

from __future__ import annotations

import dataclasses
from typing import Any

CANDIDATES = ("teacher_nll", "divergence")
STUDENT_WINDOWS = ("regenerate", "reuse")
EMBEDDINGS = ("static", "contextual")
COSTS = ("cosine", "euclidean")
MARGINALS = ("uniform", "decaying")
OBJECTIVES = ("trajectory", "cap_low", "cap_high")
RULES = ("transport", "loss")
PLANS = ("transport", "identity")
CONTEXTS = ("student", "teacher")
ROWS = ("one", "scaled", "plan")
REDUCTIONS = ("mean", "sum")
CAPS = ("scale", "clip")


def _check_choices(section: str, settings: Any, **allowed: tuple[str, ...]) -> None:
    for field, choices in allowed.items():
        if getattr(settings, field) not in choices:
            raise ValueError(
                f"{section}.{field}={getattr(settings, field)!r}: choose one of {choices}."
            )


def _check_bounds(section: str, settings: Any, *rules: tuple[str, bool, str]) -> None:
    for field, fits, bounds in rules:
        if not fits:
            raise ValueError(f"{section}.{field}={getattr(settings, field)} must be {bounds}.")


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """Where windows are opened, and how both models continue there.

    Attributes:
      tokens: K, the length of a window.
      per_rollout: W, most windows of a rollout: what is static.
      candidates: what a position's loss is: `teacher_nll`, -log q of the student's token; or
        `divergence`, that of the OPD loss.
      share: of a rollout's response tokens, those with the highest loss are candidates; at least one
        is, and at most `per_rollout` are.
      student: the student's window is written anew (`regenerate`), or is what its rollout holds
        (`reuse`), which saves decoding.
      temperature: of both models' windows; 0 is greedy.
      low_rows: rows of a batch, from the first, in which one window is opened at a low-loss
        position, for the running buffer; 0 for all.
      low_quantile: that position is drawn among those whose loss is at most this quantile of their
        rollout's.
    """

    tokens: int = 50
    per_rollout: int = 4
    candidates: str = "teacher_nll"
    share: float = 0.0225
    student: str = "regenerate"
    temperature: float = 0.0
    low_rows: int = 0
    low_quantile: float = 0.5

    def __post_init__(self):
        _check_choices("windows", self, candidates=CANDIDATES, student=STUDENT_WINDOWS)
        _check_bounds(
            "windows",
            self,
            ("tokens", self.tokens >= 1, "at least 1"),
            ("per_rollout", self.per_rollout >= 1, "at least 1"),
            ("share", 0 < self.share <= 1, "in (0, 1]"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("low_rows", self.low_rows >= 0, "0 (all rows) or more"),
            ("low_quantile", 0 < self.low_quantile <= 1, "in (0, 1]"),
        )


@dataclasses.dataclass(frozen=True)
class TransportSettings:
    """How far two windows are apart: D_OT = <G, C>.

    Attributes:
      embedding: a token is its row of the student's input table (`static`), or the student's last
        hidden state at it (`contextual`), whoever wrote it. Both are normalised to length 1.
      cost: `cosine`, 1 - cos; or `euclidean`, the distance sqrt(2 - 2 cos).
      position_penalty: what is added per share of a window by which two tokens are displaced: an
        order is seen only with it.
      marginals: a window's tokens weigh the same (`uniform`), or linearly less the later they are
        (`decaying`).
      epsilon: weight of the plan's entropy, in units of the cost.
      iterations: of Sinkhorn's algorithm, in the log domain.
    """

    embedding: str = "static"
    cost: str = "cosine"
    position_penalty: float = 0.0
    marginals: str = "uniform"
    epsilon: float = 0.05
    iterations: int = 100

    def __post_init__(self):
        _check_choices(
            "transport", self, embedding=EMBEDDINGS, cost=COSTS, marginals=MARGINALS
        )  # fmt: skip
        _check_bounds(
            "transport",
            self,
            ("position_penalty", self.position_penalty >= 0, "0 (off) or more"),
            ("epsilon", self.epsilon > 0, "above 0"),
            ("iterations", self.iterations >= 1, "at least 1"),
        )


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
      least_distance: a threshold below it is raised to it: equal windows are at a distance of rounding
        and entropy, and where most low-loss ones are equal that would be the threshold.
      plan: targets come from the plan G (`transport`), or from G = I / K (`identity`): the teacher's
        i-th token at the i-th state.
      context: the states c_i are those of the student's window, or of the teacher's.
      rows: total of a target's row: `one`, a distribution; `scaled`, that of K G, which differs only
        where marginals are not uniform; or `plan`, that of G itself.
      reduction: KLs of a window are averaged over its positions (`mean`) or summed (`sum`); and either
        way averaged over the guided windows.
      cap_share: of a batch's candidates, those that are capped.
      cap: a capped loss keeps its gradient, scaled down with it (`scale`), or has none (`clip`).
      gradient_ratio_every: updates between two measurements of |lambda grad L_traj| / |grad L_OPD|,
        which cost a gradient of each; 0 for never.
    """

    objective: str = "trajectory"
    lambda_traj: float = 0.1
    rule: str = "transport"
    high_quantile: float = 0.75
    buffer: int = 512
    min_buffer: int = 16
    least_distance: float = 1e-3
    plan: str = "transport"
    context: str = "student"
    rows: str = "one"
    reduction: str = "mean"
    cap_share: float = 0.3
    cap: str = "scale"
    gradient_ratio_every: int = 0

    def __post_init__(self):
        _check_choices(
            "guidance",
            self,
            objective=OBJECTIVES,
            rule=RULES,
            plan=PLANS,
            context=CONTEXTS,
            rows=ROWS,
            reduction=REDUCTIONS,
            cap=CAPS,
        )
        _check_bounds(
            "guidance",
            self,
            ("lambda_traj", self.lambda_traj >= 0, "0 or more"),
            ("high_quantile", 0 <= self.high_quantile <= 1, "in [0, 1]"),
            ("buffer", self.buffer >= 1, "at least 1"),
            ("min_buffer", 1 <= self.min_buffer <= self.buffer, "in [1, guidance.buffer]"),
            ("least_distance", self.least_distance >= 0, "0 or more"),
            ("cap_share", 0 <= self.cap_share <= 1, "in [0, 1]"),
            ("gradient_ratio_every", self.gradient_ratio_every >= 0, "0 (never) or more"),
        )
        if self.objective != "trajectory" and self.gradient_ratio_every:
            raise ValueError(
                f"guidance.gradient_ratio_every={self.gradient_ratio_every} with guidance.objective="
                f"{self.objective!r}: there is no L_traj. Set it to 0."
            )

    @property
    def needs_low_losses(self) -> bool:
        """Whether anything is compared to low-loss positions."""
        return self.objective == "trajectory" and self.rule == "transport"
