"""TOPD against OPD, its own controls, and the paper's analysis of false alarms, on the embedded task.

    python -m experiments.compare --config configs/studies/topd.py --workdir runs/topd
    python -m experiments.compare --config configs/studies/topd.py:smoke --workdir runs/topd-smoke

Fields as in `configs/studies/motab.py`. All arms sample at temperature 1, as the paper does, and share
the OPD loss; only what windows do to it differs.
"""

import ml_collections

ARGUMENTS = ("", "smoke")
LAMBDAS = (0.03, 0.3, 1.0)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/studies/topd.py:{arg}: the variants are {', '.join(ARGUMENTS[1:])}."
        )
    study = ml_collections.ConfigDict(
        {
            "title": "TOPD against OPD",
            "arms": ml_collections.ConfigDict(
                {
                    "opd": _arm("OPD", "opd"),
                    "topd-low-ot": _arm("OPD, capped at low OT", "low_ot"),
                    "topd-high-ot": _arm("OPD, capped at high OT", "high_ot"),
                    "topd": _arm("TOPD", ""),
                    "topd-identity": _arm("TOPD, G = I/K", "identity"),
                    "topd-teacher": _arm("CE to the teacher's window", "teacher"),
                    "topd-loss": _arm("TOPD, no OT rule", "loss"),
                    **{
                        f"topd-lambda-{round(100 * value):03}": _arm(
                            f"TOPD, lambda {value:g}", "", guidance={"lambda_traj": value}
                        )
                        for value in LAMBDAS
                    },
                },
                sort_keys=False,
            ),
            "references": ("opd", "topd-identity"),
            # There is no monitor here.
            "sweep": (),
            "monitor": (),
            "revision_text": "",
            "seeds": (0, 1, 2, 3, 4),
            "learning_rates": (3e-4, 1e-3, 3e-3),
            "selection_seed": 1000,
            "checkpoint": "final",
            "updates": 200,
            "tokens_per_update": 1600,
            "batch_size": 32,
            "shared": {
                "data": {
                    # Few prompts: with many OPD leaves nothing to be gained here.
                    "train": {"size": 64},
                    "validation": {"size": 512},
                    "test": {"size": 512},
                    "long": {"size": 256},
                },
                "evaluation": {"batch_size": 128},
                "checkpoint": {"every": 200, "max_to_keep": 1, "keep_best": False},
                "samples": {"rows": 8, "every": 10},
            },
        }
    )
    if arg == "smoke":
        study.title = "TOPD against OPD, a smoke test"
        for name in set(study.arms) - {"opd", "topd-low-ot", "topd"}:
            del study.arms[name]
        study.references = ("opd",)
        study.seeds, study.learning_rates = (0,), (1e-3,)
        study.updates, study.tokens_per_update, study.batch_size = 4, 0, 8
        study.shared = {
            "rollout": {"max_total": 96},
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
        study.arms.topd.set = {"windows": {"tokens": 6}, "guidance": {"min_buffer": 8}}
    return study


def _arm(label: str, arg: str, **fields: dict) -> dict:
    """An arm: `configs/topd.py`, its argument, and fields set on top."""
    return {"label": label, "config": "configs/topd.py", "arg": arg, "set": fields}
