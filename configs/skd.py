"""SKD by steps: the teacher rewrites the student's steps that it finds too unlikely.

    python -m experiments.run --config configs/skd.py            beta = 1
    python -m experiments.run --config configs/skd.py:0.8        beta = .8; likewise 0.6
    python -m experiments.run --config configs/skd.py:smoke      the same code in seconds
    python -m experiments.run --config configs/skd.py --config.synthesis.mode=online

A step stands if pbar_T > beta pbar_S, geometric means of its tokens' probabilities; training is by
likelihood of the whole text. SKD (2410.11325) does so by tokens and with a divergence; by steps it
is a baseline of MOTAB (2605.19433): with beta = .6, .8 and 1.0, 58.09, 59.37 and 58.47 on average
with Qwen3-32B teaching Qwen3-4B (the first recomputes to 58.00), 66.70, 75.12 and 66.70 with
gpt-oss-120b, against MOTAB's 66.64 and 77.62; 20.41, 22.08 and 71.4 (AIME24, AIME25, MATH500) from
Qwen3-8B to 1.7B.
"""

import ml_collections

from configs import common

BETAS = ("0.6", "0.8", "1.0")
ARGUMENTS = ("", *BETAS, "smoke", "0.8-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: a beta, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    beta, small = common.parse("skd.py", arg, ["", *BETAS])
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": {
                "policy": "skd",
                "loss": "likelihood",
                "skd_beta": float(beta or 1.0),
                **common.in_turns(),
            },
            # Online, the student's steps are drawn with weights refreshed every `sync_every` steps.
            "synthesis": {**common.offline(), "sync_every": 1},
        }
    )
    if small:
        common.smoke(config)
    return config
