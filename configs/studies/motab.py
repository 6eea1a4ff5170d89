"""MOTAB against its baselines and its own ablations, on the embedded task.

    python -m experiments.compare --config configs/studies/motab.py --workdir runs/study
    python -m experiments.compare --config configs/studies/motab.py:smoke --workdir runs/study-smoke

An arm is a config file, its argument, and what the arm sets on top (`set`). `shared` is set in every
arm first: what makes the arms comparable, and how much is measured.
"""

import ml_collections

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/studies/motab.py:{arg}: the variants are {', '.join(ARGUMENTS[1:])}."
        )
    study = ml_collections.ConfigDict(
        {
            "title": "MOTAB against its baselines",
            # The table has them in this order.
            "arms": ml_collections.ConfigDict(
                {
                    "sft": _arm("SFT", "sft"),
                    "rft": _arm("RFT", "rft"),
                    "imitkd": _arm("ImitKD", "imitkd"),
                    "skd-06": _arm("SKD, beta .6", "skd", "0.6"),
                    "skd-08": _arm("SKD, beta .8", "skd", "0.8"),
                    "skd-10": _arm("SKD, beta 1", "skd", "1.0"),
                    "opd": _arm("OPD", "opd"),
                    "opd-sampled": _arm("OPD, sampled token", "opd", "sampled"),
                    "opd-topk": _arm("OPD, student's top k", "opd", "topk_student"),
                    "gkd": _arm("GKD", "gkd"),
                    "motab": _arm("MOTAB", "motab"),
                    "motab-online": _arm("MOTAB, online", "motab", "online"),
                    "motab-static": _arm("MOTAB, static boundary", "motab", "static"),
                    "motab-rewrite": _arm("MOTAB, rewriting", "motab", "rewrite"),
                    "motab-no-stitch": _arm("MOTAB, no stitching", "motab", "no_stitch"),
                    **{
                        f"motab-gamma-{tenths}": _arm(
                            f"MOTAB, gamma_0 .{tenths}", "motab", motab={"gamma_0": tenths / 10}
                        )
                        for tenths in (1, 3, 5, 9)
                    },
                },
                sort_keys=False,
            ),
            # Whose accuracy is subtracted. The paper's best SKD has beta .8.
            "references": ("opd", "skd-08"),
            # Arms that differ in motab.gamma_0 alone; `motab` has .7.
            "sweep": ("motab-gamma-1", "motab-gamma-3", "motab-gamma-5", "motab", "motab-gamma-9"),
            # Whose breaches and values are drawn.
            "monitor": ("motab", "motab-online"),
            "revision_text": "However,",
            "seeds": (0, 1, 2, 3, 4),
            # Per arm, the rate with the best validation accuracy of one run with this seed. It
            # counts for nothing else, and sees no test set.
            "learning_rates": (3e-4, 1e-3, 3e-3),
            "selection_seed": 1000,
            # Which checkpoint counts: `final`, or `best` on validation, for which
            # `shared.checkpoint` must validate often and keep the best.
            "checkpoint": "final",
            "updates": 200,
            # What every arm's batch is fitted to, with the initial student; 0: batches of
            # `batch_size` trajectories, which else serve to measure.
            "tokens_per_update": 1600,
            "batch_size": 32,
            "shared": {
                "data": {
                    "train": {"size": 1024},
                    "validation": {"size": 512},
                    "test": {"size": 512},
                    "long": {"size": 256},
                },
                "evaluation": {"batch_size": 128},
                # Validated once, at the end.
                "checkpoint": {"every": 200, "max_to_keep": 1, "keep_best": False},
                "samples": {"rows": 8, "every": 10},
            },
        }
    )
    if arg == "smoke":
        study.title = "MOTAB against OPD, a smoke test"
        for name in set(study.arms) - {"opd", "motab"}:
            del study.arms[name]
        study.references, study.monitor = ("opd",), ("motab",)
        study.sweep = ("motab",)
        study.seeds = (0,)
        study.learning_rates = (1e-3,)
        study.updates, study.tokens_per_update, study.batch_size = 4, 640, 16
        study.shared = {
            "data": {
                "train": {"size": 64},
                "validation": {"size": 16},
                "test": {"size": 16},
                "long": {"size": 16},
            },
            "evaluation": {"batch_size": 16, "max_tokens": 112},
            "checkpoint": {"every": 4, "max_to_keep": 1, "keep_best": False},
            "samples": {"rows": 8, "every": 1},
        }
        study.arms.opd.set = {"rollout": {"max_total": 96}}
        study.arms.motab.set = {
            "motab": {"max_total": 96, "max_correction": 48},
            "synthesis": {"trajectories": 32},
        }
    return study


def _arm(label: str, config: str, arg: str = "", **fields: dict) -> dict:
    """An arm: the file `configs/CONFIG.py`, its argument, and fields set on top."""
    return {"label": label, "config": f"configs/{config}.py", "arg": arg, "set": fields}
