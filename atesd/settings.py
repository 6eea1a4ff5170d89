"""The exposure controller's hyper-parameters, checked once, before any work."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated

from models.checks import Count, Share, above, at_least, between, check, one_of


@dataclasses.dataclass(frozen=True)
class ControllerSettings:
    """How the exposure a, the shown share of the reference's reasoning, is chosen.

    Nothing of this is published but L = 20: the other defaults are ours. An update is one optimizer
    step of the student.

    Attributes:
      policy: `learned`, the Beta policy of Eq. 7; `fixed`; `random`, uniform on
        [`exposure_min`, `exposure_max`]; or `schedule`, given by hand.
      fixed: a of `policy = "fixed"`, in [0, 1]; not clipped. 1 is OPSD.
      schedule: (step, a) points of `policy = "schedule"`, from step 0 on in increasing order, a in
        [0, 1]; linear between points, constant after the last; not clipped.
      hold: H, updates for which one decision of `learned` or `random` holds.
      look_ahead: L, updates over which a decision is rewarded (Eq. 8).
      discount: per update, g in (0, 1].
      lambda_gt: weight of the grounding term G_gt.
      standardise_reward: divide both terms of the reward by their running standard deviations.
        Raw, the gain is hundreds of times smaller than the grounding.
      reward_loss: the loss whose decreases are rewarded: of the `train` batch, or of the `probe`
        batch, which is measured every `hold` updates: its whole decrease is credited then.
      decisions_per_update: N, completed decisions that one policy update consumes (B in Eq. 9).
      learning_rate: Adam's.
      hidden: units of the policy's hidden layer.
      entropy_target: nats; the policy's entropy is penalized above it and nowhere else. A Beta's
        entropy is at most 0.
      entropy_weight: c of Eq. 9.
      entropy_warmup: updates before which c is 0.
      exposure_min, exposure_max: a drawn a is clipped to this range.
      ema_decay: of the state's moving averages, per observation.
      groups: G, decisions taken side by side, one for each group of samples: 1, or for example 3
        for terciles of difficulty.
    """

    policy: Annotated[str, one_of("learned", "fixed", "random", "schedule")] = "learned"
    fixed: Share = 1.0
    schedule: tuple[tuple[int, float], ...] = ()
    hold: Count = 5
    look_ahead: Count = 20
    discount: Annotated[float, between(0, 1, "(]")] = 0.95
    lambda_gt: Annotated[float, at_least(0)] = 0.5
    standardise_reward: bool = True
    reward_loss: Annotated[str, one_of("train", "probe")] = "train"
    decisions_per_update: Annotated[int, at_least(2)] = 4
    learning_rate: Annotated[float, above(0)] = 3e-3
    hidden: Count = 32
    entropy_target: float = -0.15
    entropy_weight: Annotated[float, at_least(0)] = 0.01
    entropy_warmup: Annotated[int, at_least(0)] = 20
    exposure_min: Share = 0.05
    exposure_max: Share = 0.95
    ema_decay: Annotated[float, between(0, 1, "[)")] = 0.9
    groups: Count = 1

    def __post_init__(self):
        # Configs hand over lists; the settings must be hashable, for jit.
        points = tuple((int(step), float(exposure)) for step, exposure in self.schedule)
        object.__setattr__(self, "schedule", points)
        check(self, "controller")
        if not self.exposure_min < self.exposure_max:
            raise ValueError(
                f"controller.exposure_min={self.exposure_min} and controller.exposure_max="
                f"{self.exposure_max}: the range must not be empty."
            )
        if self.policy == "learned":
            self._check_learned()
        if self.policy == "schedule" or self.schedule:
            self._check_schedule()

    def _check_learned(self):
        if self.exposure_min == 0 or self.exposure_max == 1:
            raise ValueError(
                f"controller.exposure_min={self.exposure_min}, controller.exposure_max="
                f"{self.exposure_max} with controller.policy='learned': a Beta's log-density is "
                "infinite at 0 and 1. Use for example 0.05 and 0.95."
            )
        if self.reward_loss == "probe" and self.look_ahead < self.hold:
            raise ValueError(
                f"controller.reward_loss='probe' with controller.look_ahead={self.look_ahead} "
                f"below controller.hold={self.hold}: the probe batch is measured every `hold` "
                "updates, so no decrease would ever be seen. Raise look_ahead, or use 'train'."
            )

    def _check_schedule(self):
        if self.policy != "schedule":
            raise ValueError(
                f"controller.schedule with controller.policy={self.policy!r}: nothing reads it. "
                "Use controller.policy='schedule', or leave it empty."
            )
        steps = [step for step, _ in self.schedule]
        if not steps or steps[0] != 0 or any(a >= b for a, b in itertools.pairwise(steps)):
            raise ValueError(
                f"controller.schedule={self.schedule}: give (step, exposure) points with "
                "increasing steps, the first of them 0."
            )
        if not all(0 <= exposure <= 1 for _, exposure in self.schedule):
            raise ValueError(
                f"controller.schedule={self.schedule}: every exposure must lie in [0, 1]."
            )
