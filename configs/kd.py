"""Offline distillation of distributions: on the teacher's texts, the divergence to the teacher.

    python -m experiments.run --config configs/kd.py          its 32 likeliest tokens and a bucket
    python -m experiments.run --config configs/kd.py:full     the whole vocabulary
    python -m experiments.run --config configs/kd.py:smoke    the same code in seconds

What SFT (`configs/sft.py`) learns from the token that the teacher drew, this learns from all that
it might have drawn: Hinton's distillation (1503.02531) at every position of teacher-written text.
The texts do not change, so the teacher is asked about them once: with `synthesis.cache_teacher` its
scores are kept beside the texts, and training runs the student alone. That needs `top_k` over the
teacher's own tokens.
"""

import ml_collections

from configs import common

VARIANTS = ("", "full")
ARGUMENTS = (*VARIANTS, "smoke", "full-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("kd.py", arg, VARIANTS)
    signal = {"divergence": "forward_kl", "support": "full"}
    if variant == "":
        signal |= {"support": "top_k", "top_k": 32, "top_k_of": "teacher"}
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": {
                "policy": "teacher",
                "loss": "divergence",
                "teacher_temperature": 1.0,
                "max_total": 192,
            },
            "signal": signal,
            "synthesis": {**common.offline(), "cache_teacher": variant == ""},
        }
    )
    if small:
        common.smoke(config)
    return config
