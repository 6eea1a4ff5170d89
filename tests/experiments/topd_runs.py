"""TOPD runs of a second: four updates on six problems."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import topd as topd_config

STEPS, ROWS = 4, 6


def small(arg: str = "smoke", **fields) -> ConfigDict:
    """Four updates on problems of one step; `fields` are set by section."""
    config = topd_config.get_config(arg)
    config.steps, config.batch_size = STEPS, ROWS
    config.data.train.update({"size": 32, "min_steps": 1, "max_steps": 1})
    config.data.validation.update({"size": ROWS, "min_steps": 1, "max_steps": 1})
    config.data.test.name = config.data.long.name = ""
    config.evaluation.update({"max_tokens": 8, "batch_size": ROWS})
    # Widths for which text is sampled with caches of a single size.
    config.prompt.max_tokens, config.rollout.max_total = 25, 24
    config.optimizer.warmup_fraction = 0.0
    config.checkpoint.update({"every": 1, "max_to_keep": STEPS, "keep_best": False})
    config.samples.every = 0
    if config.method == "topd":
        config.windows.update({"tokens": 4, "share": 0.2, "low_rows": 4})
        config.transport.iterations = 20
        config.guidance.update({"buffer": 6, "min_buffer": 3})
        if config.guidance.objective == "trajectory":
            config.guidance.gradient_ratio_every = 2
    with config.unlocked():
        for section, values in fields.items():
            config[section].update(values)
    return config
