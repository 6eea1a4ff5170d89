"""MOTAB against its baselines and its own ablations, on the embedded task.

    python -m experiments.compare --config configs/studies/motab.py --workdir runs/study
    python -m experiments.compare --config configs/studies/motab.py:smoke --workdir runs/study-smoke

An arm is a config file, its argument, and what the arm sets on top (`set`). The other fields, and how arms
are made comparable: `configs/studies/common.py`.
"""

import ml_collections

from configs.studies import common
from configs.studies.common import ARGUMENTS, arm

__all__ = ["ARGUMENTS", "get_config"]


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    smoke = common.is_smoke("motab.py", arg)
    study = common.study(
        "MOTAB against its baselines",
        {
            "sft": arm("SFT", "sft"),
            "rft": arm("RFT", "rft"),
            "imitkd": arm("ImitKD", "imitkd"),
            "skd-06": arm("SKD, beta .6", "skd", "0.6"),
            "skd-08": arm("SKD, beta .8", "skd", "0.8"),
            "skd-10": arm("SKD, beta 1", "skd", "1.0"),
            "opd": arm("OPD", "opd"),
            "opd-sampled": arm("OPD, sampled token", "opd", "sampled"),
            "opd-topk": arm("OPD, student's top k", "opd", "topk_student"),
            "gkd": arm("GKD", "gkd"),
            "motab": arm("MOTAB", "motab"),
            "motab-online": arm("MOTAB, online", "motab", "online"),
            "motab-static": arm("MOTAB, static boundary", "motab", "static"),
            "motab-rewrite": arm("MOTAB, rewriting", "motab", "rewrite"),
            "motab-no-stitch": arm("MOTAB, no stitching", "motab", "no_stitch"),
            **{
                f"motab-gamma-{tenths}": arm(
                    f"MOTAB, gamma_0 .{tenths}", "motab", motab={"gamma_0": tenths / 10}
                )
                for tenths in (1, 3, 5, 9)
            },
        },
        # The paper's best SKD has beta .8.
        references=("opd", "skd-08"),
        # `motab` has gamma_0 = .7.
        sweep=("motab-gamma-1", "motab-gamma-3", "motab-gamma-5", "motab", "motab-gamma-9"),
        monitor=("motab", "motab-online"),
        revision_text="However,",
    )
    if smoke:
        common.shrink(
            study,
            "MOTAB against OPD, a smoke test",
            ("opd", "motab"),
            references=("opd",),
            monitor=("motab",),
            sweep=("motab",),
            updates=4,
            tokens_per_update=640,
            batch_size=16,
        )
        study.arms.opd.set = {"rollout": {"max_total": 96}}
        study.arms.motab.set = {
            "motab": {"max_total": 96, "max_correction": 48},
            "synthesis": {"trajectories": 32},
        }
    return study
