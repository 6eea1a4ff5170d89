"""Reward and teacher together, against GRPO and OPD, from one student at equal tokens.

    python -m experiments.compare --config configs/studies/family.py --workdir runs/family
    python -m experiments.compare --config configs/studies/family.py:smoke \
        --workdir runs/family-smoke

RLSD has the embedded reader as its student, which alone reads an answer before a problem, and GRPO
is run from it, too. Fields as in `configs/studies/common.py`. Nobody has run the whole study yet:
docs/studies/family.md.
"""

import ml_collections

import configs.common
from configs.studies import common
from configs.studies.common import arm

__all__ = ["ARGUMENTS", "get_config"]

ARGUMENTS = ("", "smoke")
UPDATES = 100
# Room for the longest texts of a student alone, and no more, in tokens.
ROOM = {"rollout": {"max_total": 96}}
READER = {"student": {"path": "embedded:reader"}}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    _, smoke = configs.common.parse("studies/family.py", arg, ("",))
    variants = {name: ("opd", name) for name in ("vopd", "jsd", "power", "g_opd", "eopd", "tip")}
    variants |= {"iw": ("opd", "iw"), "cord": ("opd", "cord")}
    mixed = {
        "kdrl": ("kdrl", ""),
        "kdrl-response": ("kdrl", "response"),
        "opd-on-wrong": ("rl_hybrids", "opd_on_wrong"),
        "hdpo": ("rl_hybrids", "hdpo"),
        "switch": ("rl_hybrids", "switch"),
        "rlad": ("rlad", ""),
        "sdar": ("sdar", ""),
        "scope": ("scope", ""),
    }
    kept = {"synthesis": {"trajectories": 16 * UPDATES}}
    study = common.study(
        "Reward and teacher together",
        {
            "grpo": arm("GRPO", "grpo", grpo={"max_total": 96}),
            "opd": arm("OPD, sampled", "opd", "sampled", **ROOM),
            **{name: arm(name, *which, **ROOM) for name, which in (mixed | variants).items()},
            "grpo-reader": arm("GRPO, the reader", "grpo", grpo={"max_total": 96}, **READER),
            "rlsd": arm("RLSD, the reader", "rlsd", **ROOM),
            "lightning": arm("Lightning OPD", "lightning", **ROOM, **kept),
        },
        references=("grpo", "opd"),
        seeds=(0, 1, 2),
        updates=UPDATES,
    )
    if smoke:
        common.shrink(
            study,
            "KDRL against OPD, a smoke test",
            ("opd", "kdrl"),
            references=("opd",),
            updates=4,
            tokens_per_update=0,
            batch_size=16,
        )
    return study
