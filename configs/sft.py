"""SFT on teacher traces: likelihood of texts that the teacher sampled once per prompt.

    python -m experiments.run --config configs/sft.py
    python -m experiments.run --config configs/sft.py:smoke      the same code in seconds

Every epoch sees the same traces, as a data set on disk would have it. The baseline "SFT" of MOTAB
(2605.19433): 52.77 on average with Qwen3-32B teaching Qwen3-4B, 68.28 with gpt-oss-120b, against
MOTAB's 66.64 and 77.62; 18.75, 21.25 and 69.0 (AIME24, AIME25, MATH500) from Qwen3-8B to 1.7B.
`--config.synthesis.mode=online` takes a fresh trace whenever a prompt comes up.
"""

import ml_collections

from configs import common

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    _, small = common.parse("sft.py", arg, [""])
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": {
                "policy": "teacher",
                "loss": "likelihood",
                "teacher_temperature": 0.6,
                "max_total": 192,
            },
            "synthesis": common.offline(),
        }
    )
    if small:
        common.smoke(config)
    return config
