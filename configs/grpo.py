"""GRPO, reinforcement learning from verified answers: the baseline that has no teacher.

    python -m experiments.run --config configs/grpo.py              as published (2402.03300)
    python -m experiments.run --config configs/grpo.py:token        DAPO's loss (2503.14476): one
                                                                    mean over all tokens, a wider
                                                                    upper clip
    python -m experiments.run --config configs/grpo.py:smoke        the same code in seconds

A prompt gets 8 answers; one is better by what the grader says of it, relative to the other 7.
`--config.grpo.kl_weight=0.04` adds a penalty on leaving the student before training. Clipping acts
where older weights write the text: `--config.synthesis.sync_every=4`.

The baseline "GRPO" of ATESD (2605.11458), mean of AIME24, AIME25 and HMMT Feb 25: 37.7, 62.7 and
64.0 with Qwen3-1.7B, 4B and 8B, where the untrained models have 37.1, 61.2 and 61.8, SFT 35.8, 58.6
and 59.8, OPSD 43.4, 63.6 and 64.8, and ATESD 44.35, 65.65 and 67.13.
"""

import ml_collections

from configs import common

VARIANTS = ("", "token")
ARGUMENTS = (*VARIANTS, "smoke", "token-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: of the loss, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("grpo.py", arg, VARIANTS)
    grpo = {
        "clip_low": 0.2,
        "clip_high": 0.2,
        "advantage": "std",
        "normalise": "sequence",
        "kl_weight": 0.0,
        "student_temperature": 1.0,
        "max_total": 192,
    }
    if variant == "token":
        grpo |= {"normalise": "token", "clip_high": 0.28}
    fields = common.shared()
    del fields["teacher"]
    config = ml_collections.ConfigDict(
        {
            "method": "grpo",
            **fields,
            "grpo": grpo,
            "synthesis": {**common.online(), "trajectories_per_prompt": 8},
        }
    )
    config.optimizer.learning_rate = 3e-4
    if small:
        common.smoke(config)
    return config
