"""TOPD against OPD and its own controls, and the paper's analysis of false alarms.

    python -m experiments.compare --config configs/studies/topd.py --workdir runs/topd
    python -m experiments.compare --config configs/studies/topd.py:smoke --workdir runs/topd-smoke

Fields as in `configs/studies/common.py`. All arms sample at temperature 1, as the paper does, and
share the OPD loss; only what windows do to it differs.
"""

import ml_collections

import configs.common
from configs.studies import common
from configs.studies.common import arm

__all__ = ["ARGUMENTS", "get_config"]

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    _, smoke = configs.common.parse("studies/topd.py", arg, ("",))
    study = common.study(
        "TOPD against OPD",
        {
            "opd": arm("OPD", "topd", "opd"),
            "topd-low-ot": arm("OPD, capped at low OT", "topd", "low_ot"),
            "topd-high-ot": arm("OPD, capped at high OT", "topd", "high_ot"),
            "topd": arm("TOPD", "topd", ""),
            "topd-identity": arm("TOPD, G = I/K", "topd", "identity"),
            "topd-loss": arm("TOPD, no OT rule", "topd", "loss"),
        },
        references=("opd", "topd-identity", "topd-loss", "topd-high-ot"),
    )
    # Few prompts: with many OPD leaves nothing to be gained here.
    study.shared.data.train.size = 64
    # Room for the longest texts of the embedded task, and no more: tokens.
    study.shared.rollout = {"max_total": 96}
    if smoke:
        common.shrink(
            study,
            "TOPD against OPD, a smoke test",
            ("opd", "topd-low-ot", "topd"),
            references=("opd",),
            updates=4,
            tokens_per_update=0,
            batch_size=8,
        )
        study.shared.rollout = {"max_total": 96}
        study.arms.topd.set = {"windows": {"tokens": 6}, "guidance": {"min_buffer": 8}}
    return study
