"""ATESD against OPSD, fixed and random exposure, GRPO and SFT on the references, embedded task.

    python -m experiments.compare --config configs/studies/atesd.py --workdir runs/atesd
    python -m experiments.compare --config configs/studies/atesd.py:smoke --workdir runs/atesd-smoke
    python -m experiments.exposure_sweep --config configs/studies/atesd.py --workdir runs/atesd

The last runs the arms of `exposures` alone and shows accuracy, loss and mismatch against exposure.
Fields as in `configs/studies/common.py`.
"""

import ml_collections

import configs.common
from configs.studies import common
from configs.studies.common import arm

__all__ = ["ARGUMENTS", "get_config"]

ARGUMENTS = ("", "smoke")

# OPSD is the fifth, a = 1.
FIXED = (0, 25, 50, 75)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    _, smoke = configs.common.parse("studies/atesd.py", arg, ("",))
    study = common.study(
        "ATESD against its baselines",
        {
            "sft": arm("SFT on references", "sft", "references"),
            "grpo": arm("GRPO", "grpo"),
            **{
                f"fixed-{percent}": arm(
                    f"fixed, a = {percent / 100:g}",
                    "atesd",
                    "fixed",
                    controller={"fixed": percent / 100},
                )
                for percent in FIXED
            },
            "opsd": arm("OPSD, a = 1", "opsd"),
            "random": arm("random a", "atesd", "random"),
            "atesd": arm("ATESD", "atesd"),
            "atesd-per-sample": arm("ATESD, per sample", "atesd", "per_sample"),
            "atesd-one-step": arm("ATESD, one-step credit", "atesd", "one_step"),
        },
        references=("opsd", "random", "atesd"),
    )
    # Room for the longest texts of the embedded task, and no more: tokens.
    for name, each in study.arms.items():
        if name == "grpo":
            each.set.update({"grpo": {"max_total": 96}})
        elif name != "sft":
            room = {"max_head": 4, "max_reasoning": 56, "max_answer": 12, "max_tail": 40}
            each.set.update({"exposure": room})
    # The arms of `experiments.exposure_sweep`.
    study.exposures = (*(f"fixed-{percent}" for percent in FIXED), "opsd")
    study.shared.student = {"path": "embedded:reader"}
    if smoke:
        common.shrink(
            study,
            "ATESD against OPSD, a smoke test",
            ("fixed-50", "opsd", "atesd"),
            references=("opsd",),
            exposures=("fixed-50", "opsd"),
            updates=6,
            tokens_per_update=0,
            batch_size=8,
        )
        for each in study.arms.values():
            each.set.exposure.probe_size = 8
    return study
