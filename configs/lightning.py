"""Lightning OPD: rollouts of the student before training are kept, and scored by the teacher once.

    python -m experiments.run --config configs/lightning.py
    python -m experiments.run --config configs/lightning.py:unclipped  as in the released code
    python -m experiments.run --config configs/lightning.py:smoke      the same code in seconds

Lightning OPD (2604.13010), AIME24, AIME25 and HMMT25, Qwen3-4B from Qwen3-8B: SFT 56.7, 52.1 and
34.0, OPD 65.4, 57.9 and 39.9, Lightning 68.1, 58.4 and 39.8, in 20 hours of a GPU instead of 72.
The student must have been trained on text of the same teacher: with another one 69.9 fell to 63.1.

One number is kept for each token, beside the text. Scores of another teacher, tokenizer, template,
prompt, or of other text, are refused, and so is text of another student or sampling.
"""

import ml_collections

from configs import common

VARIANTS = ("", "unclipped")
ARGUMENTS = (*VARIANTS, "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: of the advantage, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("lightning.py", arg, VARIANTS)
    clip = 0.0 if variant == "unclipped" else 10.0
    config = common.planned("lightning", {"advantage_clip": clip}, copies=1)
    # There is no ratio: any text of the student's will do.
    config.rollout.student_temperature = 0.8
    config.synthesis = {**common.offline(), "cache_teacher": True}
    if small:
        common.smoke(config)
    return config
