"""On-policy distillation: a divergence to the teacher on the student's own fresh samples.

    python -m experiments.run --config configs/opd.py               exact reverse KL
    python -m experiments.run --config configs/opd.py:topk_student  over the student's top 32 tokens
                                                                    and a bucket for all others;
                                                                    also topk_teacher, topk_union
    python -m experiments.run --config configs/opd.py:sampled       the drawn token's log-ratio as a
                                                                    detached advantage
    python -m experiments.run --config configs/opd.py:sampled-smoke the same code in seconds

MOTAB (2605.19433) compares to reverse KL over the top 32 tokens, samples at temperature .6 and
top-p .95, batch 16, learning rate 2e-6: 32.91, 30.41 and 79.2 (AIME24, AIME25, MATH500) from
Qwen3-8B to 1.7B, where MOTAB has 33.75, 31.67 and 79.0. It reports no exact one. The sampled token
takes temperature 1 without a filter: only then is the gradient the reverse KL's in expectation. The
embedded vocabulary has 98 tokens, so that here a top 32 leaves little out.
"""

import ml_collections

from configs import common

TOP_K = {f"topk_{of}": of for of in ("student", "teacher", "union")}
VARIANTS = ("", *TOP_K, "sampled")
ARGUMENTS = (*VARIANTS, "smoke", "sampled-smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: of the signal, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("opd.py", arg, VARIANTS)
    signal = {"divergence": "reverse_kl", "support": "full"}
    rollout = {
        "policy": "student",
        "loss": "divergence",
        "student_temperature": 0.6,
        "student_top_p": 0.95,
        "max_total": 192,
    }
    if variant in TOP_K:
        signal |= {"support": "top_k", "top_k": 32, "top_k_of": TOP_K[variant]}
    if variant == "sampled":
        signal |= {"support": "sampled", "form": "advantage"}
        rollout |= {"student_temperature": 1.0, "student_top_p": 1.0}
    config = ml_collections.ConfigDict(
        {
            "method": "distillation",
            **common.shared(),
            "rollout": rollout,
            "signal": signal,
            "synthesis": common.online(),
        }
    )
    if small:
        common.smoke(config)
    return config
