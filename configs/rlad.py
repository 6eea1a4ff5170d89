"""RLAD: a trust region around the student that wrote and a teacher at once (TRRD).

    python -m experiments.run --config configs/rlad.py
    python -m experiments.run --config configs/rlad.py:smoke  the same code in seconds

RLAD (2602.22495, version 2), Knights and Knaves at 8k tokens, teacher Qwen3-8B: 0.6B GRPO .76, KDRL
.92, RLAD .94; 1.7B .95, .96, .99. Mathematics, Qwen3-8B-Base: SFT 56.0, GRPO 61.0, KDRL 64.9, RLAD
66.5. alpha = 1 is GRPO, and .3 to .7 are about equal there.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("rlad.py", arg, [""])
    plan = {"alpha": 0.5, "bound": 1.0}
    config = common.planned("rlad", plan, clip_high=0.28, normalise="sequence")
    if small:
        common.smoke(config)
    return config
