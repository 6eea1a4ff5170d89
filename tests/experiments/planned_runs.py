"""Runs of the family's methods that are over in seconds."""

from __future__ import annotations

import importlib
from typing import Any

from ml_collections import ConfigDict


def small(name: str, arg: str = "", **fields: Any) -> ConfigDict:
    """`configs/NAME.py` with the argument `arg`: two updates of two prompts; `fields` by path."""
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    config.steps, config.batch_size = 2, 4
    config.checkpoint.every, config.samples.every, config.samples.rows = 2, 1, 1
    config.evaluation.max_tokens, config.evaluation.batch_size = 16, 8
    config.rollout.max_total = 64
    for split in ("validation", "test", "long"):
        config.data[split].size = 4
    config.data.train.size = 16
    if config.synthesis.mode == "offline":
        config.synthesis.trajectories = 8
    elif config.synthesis.trajectories_per_prompt > 1:
        config.synthesis.trajectories_per_prompt = 2
    config.synthesis.sync_every = min(config.synthesis.get("sync_every", 1), 1)
    if config.synthesis.mode == "offline":
        del config.synthesis.sync_every
    for path, value in fields.items():
        *sections, last = path.split("__")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value
    return config
