"""ATESD's Figure 2 for any model: what the exposure of the teacher does.

    python -m experiments.exposure_sweep --config configs/studies/atesd.py --workdir DIR
    --seeds 0,1    a part of the study's seeds
    --budget 90    minutes after which no further run is started
    --problems 256 held-out problems on which teachers of every exposure are compared

Trains the arms that the study names in `exposures`, by the study's rules and resumably, like
`experiments.compare`; then writes sweep.md, sweep.json and sweep.png. For a model of your own set
`--config.shared.student.path`, and the data, template and widths in `configs/atesd.py`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.command.flags import parse_flags
from experiments.compare.execute import compare
from experiments.compare.sweep.picture import write_sweep
from experiments.machine.compilation import keep_compiled
from experiments.machine.interruption import RESUMABLE, Interrupted, interruptible

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "the study's directory")
_SEEDS = flags.DEFINE_list("seeds", None, "which of the study's seeds; all by default")
_BUDGET = flags.DEFINE_float("budget", None, "minutes after which no further run is started")
_PROBLEMS = flags.DEFINE_integer("problems", 256, "held-out problems that teachers are compared on")


def main(_: list[str]) -> None:
    """Runs the sweep that the flags name."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None or _WORKDIR.value is None:
        sys.exit("Give --config configs/studies/FILE.py and --workdir DIR.")
    study, workdir = _CONFIG.value, Path(_WORKDIR.value)
    if "exposures" not in study or not study.exposures:
        sys.exit("The study names no `exposures`: arms that differ in controller.fixed.")
    command = shlex.join(["python", "-m", "experiments.exposure_sweep", *sys.argv[1:]])
    keep_compiled()
    try:
        seeds = None if _SEEDS.value is None else [int(seed) for seed in _SEEDS.value]
        arms = list(study.exposures)
        with interruptible():
            failed = compare(
                study, workdir, arms=arms, seeds=seeds, budget=_BUDGET.value, command=command
            )
            written = write_sweep(study, workdir, seeds, _PROBLEMS.value, command)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(RESUMABLE)
    print(f"Sweep: {os.fspath(written)}")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
