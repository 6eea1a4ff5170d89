"""RLSD: the student, some updates ago and shown the answer, says which tokens earn the reward.

    python -m experiments.run --config configs/rlsd.py
    python -m experiments.run --config configs/rlsd.py:smoke  the same code in seconds

RLSD (2604.03128), Qwen3-VL-8B on five sets of images: untrained 51.49, GRPO 53.86, OPSD 52.49, SDPO
52.74, RLSD 56.18. On text OPD-then-RL's paper has logic 56.9 and mathematics 30.1, where GRPO has
49.4 and 28.4. The teacher is refreshed every 10 updates, and its share of the credit falls to 0 in
50. The embedded reader is a student that can read a reference before the problem.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("rlsd.py", arg, [""])
    plan = {"weight": 0.5, "over": 50, "bound": 0.2}
    config = common.planned("rlsd", plan, clip_high=0.28)
    del config.teacher  # the student itself
    config.student.path = "embedded:reader"
    config.context = {
        "template": "R:\\boxed{{answer}}\n#\n{problem}",
        "max_tokens": 96,
        "sync_every": 10,
    }
    if small:
        common.smoke(config)
        config.context.sync_every = 3
    return config
