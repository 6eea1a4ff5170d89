"""KDRL: GRPO, and a pull towards a teacher that fades.

    python -m experiments.run --config configs/kdrl.py            the pull beside the surrogate
    python -m experiments.run --config configs/kdrl.py:advantage  the pull inside of it, added to A^
    python -m experiments.run --config configs/kdrl.py:response   no pull on right responses
    python -m experiments.run --config configs/kdrl.py:group      no pull in groups with a right one
    python -m experiments.run --config configs/kdrl.py:smoke      the same code in seconds

KDRL (2506.02208), from R1-Distill-Qwen-1.5B with Skywork-OR1-Math-7B as the teacher: 57.2 on
average over six sets, 2.6 above GRPO and 1.1 above the pull alone; on AIME24 SFT has 33.5, GRPO
38.3, the pull 41.0, KDRL 42.9. The weight falls from .005 to .001 in 80 updates.
"""

import ml_collections

from configs import common

PLANS: dict[str, dict] = {
    "": {},
    "advantage": {"form": "advantage"},
    "response": {"gate": "response"},
    "group": {"gate": "group"},
}
VARIANTS = tuple(PLANS)
ARGUMENTS = (*VARIANTS, "smoke", "advantage-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: one of `VARIANTS`, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("kdrl.py", arg, VARIANTS)
    plan = {
        "pull": "reverse_kl",
        "form": "loss",
        "beta": 5e-3,
        "beta_decay": 5e-5,
        "beta_min": 1e-3,
        "gate": "none",
    }
    config = common.planned("kdrl", {**plan, **PLANS[variant]})
    if small:
        common.smoke(config)
    return config
