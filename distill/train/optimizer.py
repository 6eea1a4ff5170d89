"""AdamW with warm-up, a schedule and gradient clipping, from plain numbers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import optax

from models.checks import Count, above, at_least, between, check, one_of

# Names of arrays that are no matrices: scales of norms, and biases.
_VECTORS = ("_norm", "_bias")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Defaults are MOTAB's fine-tuning settings.

    Attributes:
      learning_rate: peak.
      final_learning_rate: at the last step of the `cosine` schedule, at most the peak.
      schedule: `cosine` decay after the warm-up, or `constant`.
      warmup_fraction: share of all steps over which the rate rises linearly.
      b1, b2, eps, weight_decay: AdamW's.
      decay: what `weight_decay` acts on: `matrices`, adapters among them, but no norm's scale and
        no bias; or `all`.
      clip_norm: gradients are scaled down to this global norm; 0 is off.
      micro_batches: parts that a batch is cut into, one after the other; less memory, and the same
        update: see `distill.train.update.make_train_step`.
    """

    learning_rate: Annotated[float, above(0)] = 5e-5
    final_learning_rate: Annotated[float, at_least(0)] = 1e-6
    schedule: Annotated[str, one_of("cosine", "constant")] = "cosine"
    warmup_fraction: Annotated[float, between(0, 1, "[)")] = 0.05
    b1: Annotated[float, between(0, 1, "[)")] = 0.9
    b2: Annotated[float, between(0, 1, "[)")] = 0.95
    eps: Annotated[float, above(0)] = 1e-8
    weight_decay: Annotated[float, at_least(0)] = 0.1
    decay: Annotated[str, one_of("matrices", "all")] = "matrices"
    clip_norm: Annotated[float, at_least(0, "off")] = 1.0
    micro_batches: Count = 1

    def __post_init__(self):
        check(self, "optimizer")
        if self.schedule == "cosine" and self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"optimizer.final_learning_rate={self.final_learning_rate} is above the peak, "
                f"optimizer.learning_rate={self.learning_rate}: the rate would rise to the "
                "end. Lower it, or set optimizer.schedule='constant'."
            )


def make_schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """Learning rate by step. The first update has a rate above 0.

    Example:
      >>> settings = OptimizerSettings(
      ...     learning_rate=1e-3, final_learning_rate=1e-5, warmup_fraction=0.1
      ... )
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


def matrices(params: Any) -> Any:
    """A tree of bools like the parameters: False for the scales of norms and for biases."""
    return jax.tree.map_with_path(
        lambda path, _: not str(getattr(path[-1], "key", "")).endswith(_VECTORS) if path else True,
        params,
    )


def make_optimizer(
    settings: OptimizerSettings, steps: int, trainable: Any = None
) -> optax.GradientTransformation:
    """Clipping, then AdamW on the schedule of `steps` updates.

    Args:
      trainable: a tree of bools like the parameters. Where it is False an array stays as it is,
        has no state, and its gradient does not count in the norm; None trains all. A base under
        adapters needs none: `distill.train.update.make_train_step` freezes it.
    """
    s = settings
    schedule, mask = make_schedule(s, steps), matrices if s.decay == "matrices" else None
    adamw = optax.adamw(schedule, s.b1, s.b2, s.eps, weight_decay=s.weight_decay, mask=mask)
    full = optax.chain(optax.clip_by_global_norm(s.clip_norm), adamw) if s.clip_norm else adamw
    if trainable is None:
        return full
    frozen = jax.tree.map(lambda x: not x, trainable)
    return optax.chain(optax.masked(full, trainable), optax.masked(optax.set_to_zero(), frozen))
