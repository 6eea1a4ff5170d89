"""ATESD against OPSD, fixed and random exposure, GRPO and SFT on the references, embedded task.

    python -m experiments.compare --config configs/studies/atesd.py --workdir runs/atesd
    python -m experiments.compare --config configs/studies/atesd.py:smoke --workdir runs/atesd-smoke
    python -m experiments.exposure_sweep --config configs/studies/atesd.py --workdir runs/atesd

The last runs the arms of `exposures` alone and shows accuracy, loss and mismatch against exposure.
Fields as in `configs/studies/motab.py`.
"""

import ml_collections

ARGUMENTS = ("", "smoke")
# OPSD is the fifth, a = 1.
FIXED = (0, 25, 50, 75)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The study of the variant `arg`, one of `ARGUMENTS`.

    Raises:
      ValueError: there is no such variant.
    """
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/studies/atesd.py:{arg}: the variants are {', '.join(ARGUMENTS[1:])}."
        )
    study = ml_collections.ConfigDict(
        {
            "title": "ATESD against its baselines",
            "arms": ml_collections.ConfigDict(
                {
                    "sft": _arm("SFT on references", "sft", "references"),
                    "grpo": _arm("GRPO", "grpo"),
                    **{
                        f"fixed-{percent}": _arm(
                            f"fixed, a = {percent / 100:g}",
                            "atesd",
                            "fixed",
                            controller={"fixed": percent / 100},
                        )
                        for percent in FIXED
                    },
                    "opsd": _arm("OPSD, a = 1", "opsd"),
                    "random": _arm("random a", "atesd", "random"),
                    "atesd": _arm("ATESD", "atesd"),
                    "atesd-per-sample": _arm("ATESD, per sample", "atesd", "per_sample"),
                    "atesd-one-step": _arm("ATESD, one-step credit", "atesd", "one_step"),
                    "atesd-short-delay": _arm("ATESD, short delay", "atesd", "short_delay"),
                    "atesd-no-grounding": _arm("ATESD, without G_gt", "atesd", "no_grounding"),
                },
                sort_keys=False,
            ),
            "references": ("opsd", "fixed-50"),
            # The arms of `experiments.exposure_sweep`.
            "exposures": (*(f"fixed-{percent}" for percent in FIXED), "opsd"),
            # There is no monitor here.
            "sweep": (),
            "monitor": (),
            "revision_text": "",
            "seeds": (0, 1, 2, 3, 4),
            "learning_rates": (3e-4, 1e-3, 3e-3),
            "selection_seed": 1000,
            "checkpoint": "final",
            "updates": 150,
            "tokens_per_update": 1440,
            "batch_size": 32,
            "shared": {
                "student": {"path": "embedded:reader"},
                "data": {
                    "train": {"size": 1024},
                    "validation": {"size": 512},
                    "test": {"size": 512},
                    "long": {"size": 256},
                },
                "evaluation": {"batch_size": 128, "max_tokens": 192},
                "checkpoint": {"every": 150, "max_to_keep": 1, "keep_best": False},
                "samples": {"rows": 8, "every": 10},
            },
        }
    )
    if arg == "smoke":
        study.title = "ATESD against OPSD, a smoke test"
        for name in set(study.arms) - {"fixed-50", "opsd", "atesd"}:
            del study.arms[name]
        study.references, study.exposures = ("opsd",), ("fixed-50", "opsd")
        study.seeds, study.learning_rates = (0,), (1e-3,)
        study.updates, study.tokens_per_update, study.batch_size = 6, 0, 8
        study.shared = {
            "student": {"path": "embedded:reader"},
            "data": {
                "train": {"size": 64},
                "validation": {"size": 16},
                "test": {"size": 16},
                "long": {"size": 16},
            },
            "evaluation": {"batch_size": 16, "max_tokens": 112},
            "checkpoint": {"every": 6, "max_to_keep": 1, "keep_best": False},
            "samples": {"rows": 8, "every": 1},
        }
        for arm in study.arms.values():
            arm.set.update({"exposure": {"probe_size": 8}})
    return study


def _arm(label: str, config: str, arg: str = "", **fields: dict) -> dict:
    """An arm: the file `configs/CONFIG.py`, its argument, and fields set on top."""
    return {"label": label, "config": f"configs/{config}.py", "arg": arg, "set": fields}
