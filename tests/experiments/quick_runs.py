"""Runs that compile little: likelihood of references, with a short validation."""

from ml_collections import ConfigDict

from configs import sft


def references(every: int, steps: int = 6) -> ConfigDict:
    """SFT on references, validated and saved every so many steps."""
    config = sft.get_config("references")
    config.steps, config.batch_size, config.checkpoint.every = steps, 4, every
    config.data.train.size, config.data.validation.size = 32, 4
    config.evaluation.batch_size, config.evaluation.max_tokens = 4, 32
    for data in ("test", "long"):
        config.data[data].name = ""
    return config
