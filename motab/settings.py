"""MOTAB's own hyper-parameters, checked once, before any work."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from distill.losses.divergence import DIVERGENCES
from models.checks import Count, Share, Temperature, at_least, check, one_of


@dataclasses.dataclass(frozen=True)
class MotabSettings:
    """How trajectories are monitored, corrected and trained on. Defaults are the paper's.

    Attributes:
      signal: what a step's value is made of, V = exp(-D): `likelihood` is the paper's (Eq. 5), the
        others replace -log q(token) by a divergence between student and teacher.
      gamma_0, alpha: boundary gamma = gamma_0 exp(-alpha H) (Eq. 6); H in nats. Values V are at
        most 1, and so is gamma_0.
      boundary: `adaptive`, or `static`: H = 0.
      entropy_top_k: H runs over this many most likely teacher tokens, renormalized.
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

    signal: Annotated[str, one_of("likelihood", *DIVERGENCES)] = "likelihood"
    gamma_0: Share = 0.3
    alpha: Annotated[float, at_least(0)] = 1.0
    boundary: Annotated[str, one_of("adaptive", "static")] = "adaptive"
    entropy_top_k: Count = 20
    delimiter: str = ".\n\n"
    revision_text: str = "However,\n\n"
    student_temperature: Temperature = 0.6
    teacher_temperature: Temperature = 0.6
    max_step_tokens: Count = 8192
    max_total: Count = 32768
    max_correction: Count = 32768
    min_correction: Count = 256
    correction: Annotated[str, one_of("backtrack", "rewrite")] = "backtrack"
    stitch: bool = True
    loss_on: Annotated[str, one_of("eq11", "response", "correction", "before_root")] = "eq11"
    safe_loss: Annotated[str, one_of("likelihood", *DIVERGENCES)] = "likelihood"
    jsd_beta: Share = 0.5
    chunk: Count = 256

    def __post_init__(self):
        check(self, "motab")
        if self.min_correction > self.max_correction:
            raise ValueError(
                f"motab.min_correction={self.min_correction} exceeds "
                f"motab.max_correction={self.max_correction}: every correction would be dropped."
            )
        if not self.delimiter:
            raise ValueError("motab.delimiter is empty; give the text that ends a step.")
