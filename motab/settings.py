"""MOTAB's own hyper-parameters, checked once, before any work."""

from __future__ import annotations

import dataclasses

from distill.losses.divergence import DIVERGENCES

SIGNALS = ("likelihood", *DIVERGENCES)
BOUNDARIES = ("adaptive", "static")
CORRECTIONS = ("backtrack", "rewrite")
LOSS_ON = ("eq11", "response", "correction", "before_root")
SAFE_LOSSES = ("likelihood", *DIVERGENCES)


@dataclasses.dataclass(frozen=True)
class MotabSettings:
    """How trajectories are monitored, corrected and trained on. Defaults are the paper's.

    Attributes:
      signal: what a step's value is made of, V = exp(-D): `likelihood` is the paper's (Eq. 5), the
        others replace -log q(token) by a divergence between student and teacher.
      gamma_0, alpha: boundary gamma = gamma_0 exp(-alpha H) (Eq. 6); H in nats.
      boundary: `adaptive`, or `static`: H = 0.
      entropy_top_k: H runs over this many most likely teacher tokens, renormalised.
      delimiter: text that ends a step.
      revision_text: text between a flawed step and the teacher's correction.
      student_temperature, teacher_temperature: of sampling; scores are always at temperature 1.
      max_step_tokens: a step that reaches it closes, and monitoring goes on.
      max_total: most tokens of the stitched response; the student stops there, too.
      max_correction, min_correction: most tokens of a correction, and the fewest it must have room
        for; a trajectory whose correction has less room is dropped.
      correction: `backtrack` to the root step (Eq. 8), or `rewrite` from the breaching step.
      stitch: keep the flawed steps and the revision text before the correction (Eq. 10); without,
        the correction follows the last safe state directly.
      loss_on: which tokens train: `eq11` (all but the breaching step), `response` (all),
        `correction` (revision text and correction), `before_root` (safe steps before the root,
        revision text and correction).
      safe_loss: what trains on student steps that passed the boundary: `likelihood`, or a
        divergence to the teacher.
      jsd_beta: beta of `safe_loss = "jsd"`.
      chunk: student tokens between two looks of the teacher. Changes speed, not results.
    """

    signal: str = "likelihood"
    gamma_0: float = 0.3
    alpha: float = 1.0
    boundary: str = "adaptive"
    entropy_top_k: int = 20
    delimiter: str = ".\n\n"
    revision_text: str = "However,\n\n"
    student_temperature: float = 0.6
    teacher_temperature: float = 0.6
    max_step_tokens: int = 8192
    max_total: int = 32768
    max_correction: int = 32768
    min_correction: int = 256
    correction: str = "backtrack"
    stitch: bool = True
    loss_on: str = "eq11"
    safe_loss: str = "likelihood"
    jsd_beta: float = 0.5
    chunk: int = 256

    def __post_init__(self):
        for field, allowed in (
            ("signal", SIGNALS),
            ("boundary", BOUNDARIES),
            ("correction", CORRECTIONS),
            ("loss_on", LOSS_ON),
            ("safe_loss", SAFE_LOSSES),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"motab.{field}={getattr(self, field)!r}: choose one of {allowed}."
                )
        for field, low in (
            ("gamma_0", 0),
            ("alpha", 0),
            ("student_temperature", 0),
            ("teacher_temperature", 0),
            ("entropy_top_k", 1),
            ("max_step_tokens", 1),
            ("max_total", 1),
            ("max_correction", 1),
            ("min_correction", 1),
            ("chunk", 1),
        ):
            if not getattr(self, field) >= low:
                raise ValueError(f"motab.{field}={getattr(self, field)} must be at least {low}.")
        if not 0 <= self.jsd_beta <= 1:
            raise ValueError(f"motab.jsd_beta={self.jsd_beta} must lie in [0, 1].")
        if self.min_correction > self.max_correction:
            raise ValueError(
                f"motab.min_correction={self.min_correction} exceeds "
                f"motab.max_correction={self.max_correction}: every correction would be dropped."
            )
        if not self.delimiter:
            raise ValueError("motab.delimiter is empty; give the text that ends a step.")
