"""What studies share: equal updates and tokens, rates chosen on validation, one look at tests."""

from __future__ import annotations

from typing import Any

import ml_collections


def arm(label: str, config: str, arg: str = "", **fields: dict) -> dict:
    """An arm: the file `configs/CONFIG.py`, its argument, and fields set on top."""
    return {"label": label, "config": f"configs/{config}.py", "arg": arg, "set": fields}


def study(title: str, arms: dict[str, dict], **fields: Any) -> ml_collections.ConfigDict:
    """A study of `arms`, in the table's order; `fields` are set on top of the defaults."""
    config = ml_collections.ConfigDict(
        {
            "title": title,
            "arms": ml_collections.ConfigDict(arms, sort_keys=False),
            # Whose accuracy is subtracted.
            "references": (),
            # Arms that differ in motab.gamma_0 alone, and whose breaches and values are drawn.
            "sweep": (),
            "monitor": (),
            # What a correction begins with: how often answers have it, and whether it repairs.
            "revision_text": "",
            "seeds": (0, 1, 2, 3, 4),
            # Per arm, the rate with the best validation accuracy of one run with this seed. It
            # counts for nothing else, and sees no test set.
            "learning_rates": (3e-4, 1e-3, 3e-3),
            "selection_seed": 1000,
            # Which checkpoint counts: `final`, or `best` on validation, for which
            # `shared.checkpoint` must validate often and keep the best.
            "checkpoint": "final",
            "updates": 100,
            # What every arm's batch is fitted to, with the initial student; 0: batches of
            # `batch_size` trajectories, which else serve to measure.
            "tokens_per_update": 800,
            "batch_size": 16,
            # Set in every arm first: what makes arms comparable, and how much is measured.
            "shared": {
                "data": _sizes(train=1024, validation=512, test=512, long=256),
                "evaluation": {"batch_size": 128, "max_tokens": 160},
                "samples": {"rows": 8, "every": 10},
            },
        }
    )
    config.update(fields)
    # Validated once, at the end.
    config.shared.checkpoint = {"every": config.updates, "max_to_keep": 1, "keep_best": False}
    return config


def shrink(config: ml_collections.ConfigDict, title: str, arms: tuple[str, ...], **fields: Any):
    """Shrinks the study to a smoke test: one seed, one rate, a few updates of 64 prompts."""
    config.title = title
    for name in set(config.arms) - set(arms):
        del config.arms[name]
    config.seeds, config.learning_rates = (0,), (1e-3,)
    config.update(fields)
    config.shared.data = _sizes(train=64, validation=16, test=16, long=16)
    config.shared.evaluation = {"batch_size": 16, "max_tokens": 112}
    config.shared.checkpoint.every = config.updates
    config.shared.samples.every = 1


def _sizes(**sizes: int) -> dict:
    return {split: {"size": size} for split, size in sizes.items()}
