"""On-policy distillation: a divergence to the teacher on the student's own fresh samples.

    python -m experiments.run --config configs/opd.py               exact reverse KL
    python -m experiments.run --config configs/opd.py:topk_student  over the student's top 32 tokens
                                                                    and a bucket for all others;
                                                                    also topk_teacher, topk_union
    python -m experiments.run --config configs/opd.py:sampled       the drawn token's log-ratio as a
                                                                    detached advantage
    python -m experiments.run --config configs/opd.py:sampled-smoke the same code in seconds

Others weigh or shape the drawn token's log-ratio d = log q - log p (docs/family.md): `vopd` adds
the position's divergence, `jsd` descends GKD's JSD, `power` takes a difference of powers of q and
p, `g_opd` goes on beyond the teacher, `eopd` adds a forward KL where the teacher is not sure, `tip`
keeps the half of the tokens where the student is least sure, `iw` minds early tokens more, `lagged`
lets weights write that are up to four updates old, and `cord` has the exact divergence, by CORD's
weights.

MOTAB (2605.19433) compares to reverse KL over the top 32 tokens, samples at temperature .6 and
top-p .95, batch 16, learning rate 2e-6: 32.91, 30.41 and 79.2 (AIME24, AIME25, MATH500) from
Qwen3-8B to 1.7B, where MOTAB has 33.75, 31.67 and 79.0. It reports no exact one. The sampled token
takes temperature 1 without a filter: only then is the gradient the reverse KL's in expectation. The
embedded vocabulary has 98 tokens, so that here a top 32 leaves little out.
"""

import ml_collections

from configs import common

TOP_K = {f"topk_{of}": of for of in ("student", "teacher", "union")}
# Methods of the family, and their settings.
PLANS: dict[str, tuple[str, dict]] = {
    "lagged": ("plan_opd", {"pull": "reverse_kl"}),
    "vopd": ("vopd", {"baseline": 1.0}),
    "jsd": ("jsd_opd", {"beta": 0.5}),
    "power": ("power_opd", {"power": 0.5}),
    "g_opd": ("g_opd", {"extrapolation": 1.25}),
    "eopd": ("eopd", {"threshold": 0.8, "top_k": 16, "weight": 1.0}),
    "tip": ("tip", {"share": 0.5}),
    "iw": ("iw_opd", {"bonus": 0.5}),
    "cord": ("curve", {"top": 20, "top_weight": 2.0, "first": 2.0, "last": 1.0}),
}
VARIANTS = ("", *TOP_K, "sampled", *PLANS)
ARGUMENTS = (*VARIANTS, "smoke", "sampled-smoke", *(f"{name}-smoke" for name in PLANS))


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The config of the variant `arg`: of the signal, `smoke`, or both.

    Raises:
      ValueError: there is no such variant.
    """
    variant, small = common.parse("opd.py", arg, VARIANTS)
    if variant in PLANS:
        config = common.planned(*PLANS[variant], copies=1)
        config.synthesis.sync_every = 4 if variant == "lagged" else 1
        if small:
            common.smoke(config)
        return config
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
