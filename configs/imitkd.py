"""ImitKD by steps: each is the teacher's or the student's at random; likelihood of them all.

    python -m experiments.run --config configs/imitkd.py
    python -m experiments.run --config configs/imitkd.py:smoke     the same code in seconds
    python -m experiments.run --config configs/imitkd.py --config.synthesis.mode=online

ImitKD (2009.07253) mixes at the level of samples and anneals the share; by steps and once, before
training, it is a baseline of MOTAB (2605.19433): 55.02 on average with Qwen3-32B teaching Qwen3-4B,
63.91 with gpt-oss-120b, against MOTAB's 66.64 and 77.62. `rollout.teacher_share` is the teacher's
share of the steps: 0 is the student alone, 1 the teacher alone.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("imitkd.py", arg, [""])
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": {
                "policy": "imitkd",
                "loss": "likelihood",
                "teacher_share": 0.5,
                **common.in_turns(),
            },
            # Online, the student's steps are drawn with weights refreshed every `sync_every` steps.
            "synthesis": {**common.offline(), "sync_every": 1},
        }
    )
    if small:
        common.smoke(config)
    return config
