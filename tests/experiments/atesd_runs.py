"""ATESD runs of a second: seven updates, two decisions pending at a time."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import atesd as atesd_config

STEPS, HOLD, ROWS = 7, 2, 6
# Two decisions wait for their reward at a time; the policy learns before the last one is taken.
CONTROLLER = {
    "hold": HOLD, "look_ahead": 3, "decisions_per_update": 2, "hidden": 4, "learning_rate": 0.5,
    "entropy_warmup": 0,
}  # fmt: skip
EMA = {"exposed": {"weights": "ema"}, "controller": {"groups": 3}}


def small(arg: str = "smoke", module=atesd_config, **fields) -> ConfigDict:
    """Seven updates on six problems of one step; `fields` are set by section."""
    config = module.get_config(arg)
    config.student.path = "embedded:student"
    config.steps, config.batch_size = STEPS, ROWS
    config.data.train.update({"size": 32, "min_steps": 1, "max_steps": 1})
    config.data.validation.update({"size": ROWS, "min_steps": 1, "max_steps": 1})
    config.data.test.name = config.data.long.name = ""
    config.evaluation.update({"max_tokens": 8, "batch_size": ROWS})
    config.exposure.update({"probe_size": ROWS, "max_reasoning": 32, "unit": "token"})
    config.exposed.grounding_rows = 2
    # Widths for which text is sampled with caches of a single size.
    config.prompt.max_tokens, config.rollout.max_total = 25, 24
    config.optimizer.warmup_fraction = 0.0
    if config.controller.policy == "learned":
        config.controller.update(CONTROLLER)
    config.checkpoint.update({"every": 1, "max_to_keep": STEPS, "keep_best": False})
    config.samples.every = 0
    with config.unlocked():
        for section, values in fields.items():
            config[section].update(values)
    return config
