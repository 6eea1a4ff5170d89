"""GKD: generalised JSD to the teacher, on the student's samples or the teacher's by a coin's toss.

    python -m experiments.run --config configs/gkd.py
    python -m experiments.run --config configs/gkd.py:smoke      the same code in seconds

GKD (2306.13649). `rollout.on_policy_share` is its lambda, `signal.jsd_beta` its beta: 0 is forward
KL, 1 is reverse KL, so that (1, 1) is on-policy distillation with the exact reverse KL and (0, 0)
is token-level distillation on the teacher's traces. Those are fresh at every step, not a fixed data
set. The paper samples the student at temperature 1. MOTAB (2605.19433) has no numbers for it.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("gkd.py", arg, [""])
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": {
                "policy": "gkd",
                "loss": "divergence",
                "on_policy_share": 0.5,
                "student_temperature": 1.0,
                "student_top_p": 1.0,
                "teacher_temperature": 1.0,
                "max_total": 192,
            },
            "signal": {"divergence": "jsd", "jsd_beta": 0.5, "support": "full"},
            "synthesis": common.online(),
        }
    )
    if small:
        common.smoke(config)
    return config
