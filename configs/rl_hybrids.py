"""Reward and teacher by turns: three methods in the forms in which OPD-then-RL's paper runs them.

    python -m experiments.run --config configs/rl_hybrids.py:opd_on_wrong  wrong ones are taught
    python -m experiments.run --config configs/rl_hybrids.py:hdpo          taught if a group fails
    python -m experiments.run --config configs/rl_hybrids.py:switch        OPD, then GRPO
    python -m experiments.run --config configs/rl_hybrids.py:switch-smoke  the same code in seconds

The first is there called SRPO, a name that other papers have, too. Logic and mathematics, as that
paper reports them: GRPO 49.4 and 28.4, OPD 53.9 and 31.0, KDRL 62.8 and 29.0, SRPO 56.0 and 31.6,
HDPO 53.9 (logic alone), OPD and then RL 80.6 and 31.8. HDPO's weight of 1 is ours.
"""

import ml_collections

from configs import common

PLANS: dict[str, dict] = {
    "opd_on_wrong": {"pull": "reverse_kl"},
    "hdpo": {"pull": "reverse_kl", "beta": 1.0},
    "switch": {"pull": "reverse_kl", "after": 60, "mask_ends": True},
}
VARIANTS = tuple(PLANS)
ARGUMENTS = (*VARIANTS, *(f"{name}-smoke" for name in PLANS), "smoke")


def get_config(arg: str = "switch") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: one of `VARIANTS`, with `-smoke` or not; `smoke`: `switch`.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("rl_hybrids.py", arg, ("", *VARIANTS))
    variant = variant or "switch"
    config = common.planned(variant, dict(PLANS[variant]))
    if small:
        common.smoke(config)
        if variant == "switch":
            config.plan.after = config.steps // 2
    return config
