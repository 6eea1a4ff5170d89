"""SFT: likelihood of texts that the teacher sampled once per prompt, or of the references.

    python -m experiments.run --config configs/sft.py             the teacher's traces
    python -m experiments.run --config configs/sft.py:references  solutions that came with the data
    python -m experiments.run --config configs/sft.py:smoke       the same code in seconds

Every epoch sees the same traces, as a data set on disk would have it. The baseline "SFT" of MOTAB
(2605.19433): 52.77 on average with Qwen3-32B teaching Qwen3-4B, 68.28 with gpt-oss-120b, against
MOTAB's 66.64 and 77.62; 18.75, 21.25 and 69.0 (AIME24, AIME25, MATH500) from Qwen3-8B to 1.7B.
On references, ATESD (2605.11458) reports means of AIME24, AIME25 and HMMT25 of 35.8, 58.6 and 59.8
for Qwen3-1.7B, 4B and 8B, from 37.1, 61.2 and 61.8 before.
`--config.synthesis.mode=online` takes a fresh trace whenever a prompt comes up.
"""

import ml_collections

from configs import common

VARIANTS = ("", "references")
ARGUMENTS = (*VARIANTS, "smoke", "references-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("sft.py", arg, VARIANTS)
    config = _references() if variant == "references" else _traces()
    if small:
        common.smoke(config)
    return config


def _traces() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
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


def _references() -> ml_collections.ConfigDict:
    fields = common.shared()
    del fields["teacher"]
    return ml_collections.ConfigDict(
        {
            "method": "sft",
            **fields,
            # Of prompt and reference together, in tokens.
            "sft": {"max_tokens": 208, "shuffle": True, "overlong": "error"},
        }
    )
