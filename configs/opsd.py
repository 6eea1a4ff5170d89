"""OPSD: on-policy self-distillation, the teacher seeing the whole reference (a = 1).

    python -m experiments.run --config configs/opsd.py
    python -m experiments.run --config configs/opsd.py:ema      teacher: the running average
    python -m experiments.run --config configs/opsd.py:live     teacher: the student; unstable
    python -m experiments.run --config configs/opsd.py:clipped  every summand capped at .05 nats
    python -m experiments.run --config configs/opsd.py:smoke    the same code in seconds

OPSD (2601.18734), as ATESD's paper reports it, mean of AIME24, AIME25 and HMMT25 (Average@12) for
Qwen3-1.7B, 4B and 8B: 43.4, 63.6 and 64.8; on AIME24 with 1.7B 57.20.
"""

import ml_collections

from configs import atesd, common

VARIANTS = ("", "ema", "live", "clipped")
ARGUMENTS = (*VARIANTS, "smoke", "ema-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: one of `VARIANTS`, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("opsd.py", arg, VARIANTS)
    config = atesd.get_config("fixed-smoke" if small else "fixed")
    config.controller.fixed = 1.0
    if variant in ("ema", "live"):
        config.exposed.weights = variant
    elif variant == "clipped":
        config.loss.clip = "summand"
    return config
