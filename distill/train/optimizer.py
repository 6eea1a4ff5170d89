"""AdamW with warm-up, a schedule and gradient clipping, from plain numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax

SCHEDULES = ("cosine", "constant")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Defaults are MOTAB's fine-tuning settings.

    Attributes:
      learning_rate: peak.
      final_learning_rate: at the last step of the `cosine` schedule.
      schedule: `cosine` decay after the warm-up, or `constant`.
      warmup_fraction: share of all steps over which the rate rises linearly.
      b1, b2, eps, weight_decay: AdamW's.
      clip_norm: gradients are scaled down to this global norm; 0 is off.
      micro_batches: parts that a batch is cut into, one after the other; less memory, and the same
        update: see `distill.train.update.make_train_step`.
    """

    learning_rate: float = 5e-5
    final_learning_rate: float = 1e-6
    schedule: str = "cosine"
    warmup_fraction: float = 0.05
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    micro_batches: int = 1

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optimizer.schedule={self.schedule!r}: choose one of {SCHEDULES}.")
        if not self.learning_rate > 0:
            raise ValueError(f"optimizer.learning_rate={self.learning_rate} must be above 0.")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(
                f"optimizer.warmup_fraction={self.warmup_fraction} must lie in [0, 1)."
            )
        if self.clip_norm < 0:
            raise ValueError(f"optimizer.clip_norm={self.clip_norm} must be 0 (off) or more.")
        if self.micro_batches < 1:
            raise ValueError(f"optimizer.micro_batches={self.micro_batches} must be at least 1.")


def make_schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """Learning rate by step. The first update has a rate above 0.

    Example:
      >>> settings = OptimizerSettings(learning_rate=1e-3, final_learning_rate=1e-5, warmup_fraction=0.1)
      >>> schedule = make_schedule(settings, steps=100)
      >>> [f"{schedule(step):.1e}" for step in (0, 10, 100)]
      ['9.1e-05', '1.0e-03', '1.0e-05']
    """
    s = settings
    warmup = max(1, round(s.warmup_fraction * steps)) if s.warmup_fraction else 0
    if s.schedule == "cosine":
        main = optax.cosine_decay_schedule(
            s.learning_rate, max(1, steps - warmup), s.final_learning_rate / s.learning_rate
        )
    else:
        main = optax.constant_schedule(s.learning_rate)
    if not warmup:
        return main
    rise = optax.linear_schedule(s.learning_rate / (warmup + 1), s.learning_rate, warmup)
    return optax.join_schedules([rise, main], [warmup])


def make_optimizer(
    settings: OptimizerSettings, steps: int, trainable: Any = None
) -> optax.GradientTransformation:
    """Clipping, then AdamW on the schedule of `steps` updates.

    Args:
      trainable: a tree of bools like the parameters. Where it is False an array stays as it is,
        has no state, and its gradient does not count in the norm; None trains all.
    """
    s = settings
    adamw = optax.adamw(
        make_schedule(s, steps), b1=s.b1, b2=s.b2, eps=s.eps, weight_decay=s.weight_decay
    )
    full = optax.chain(optax.clip_by_global_norm(s.clip_norm), adamw) if s.clip_norm else adamw
    if trainable is None:
        return full
    frozen = jax.tree.map(lambda x: not x, trainable)
    return optax.chain(optax.masked(full, trainable), optax.masked(optax.set_to_zero(), frozen))
