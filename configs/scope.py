"""SCOPE: right responses are imitated, wrong ones taught, both weighed by perplexity.

    python -m experiments.run --config configs/scope.py
    python -m experiments.run --config configs/scope.py:smoke  the same code in seconds

SCOPE (2604.10688), mean of 32 answers: R1-Distill-1.5B 47.9, GRPO 49.6, KD 45.4, OPD 52.3, SCOPE
55.2; Qwen3-1.7B-Base 19.0, 26.5, 20.1, 30.6, 32.5. Its text is sampled at .6; here, as ratios are
taken, at 1. The weights of a group's right and wrong responses have mean 1 each, as in the released
code; `--config.plan.group_scale=sum1` lets them add up to 1, as in the paper.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("scope.py", arg, [""])
    config = common.planned("scope", {"tau": 1.0, "group_scale": "mean1"})
    if small:
        common.smoke(config)
    return config
