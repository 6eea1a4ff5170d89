"""Runs a study: `python -m experiments.compare --config configs/studies/motab.py --workdir DIR`.

    --config configs/studies/motab.py:smoke   a variant; --config.field=value sets a field
    --arms opd,motab --seeds 0,1              a part of the study
    --budget 90                               minutes after which no further run is started

The same command again goes on where it was interrupted, and does no finished run again;
`--budget 0` only writes the table. It exits with 1 where an arm failed, and with 75 when SIGTERM or
Ctrl-C interrupted it; the run under way is saved, and the table shows what there is.
"""

from __future__ import annotations

import shlex
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.command.flags import parse_flags
from experiments.compare.execute import compare
from experiments.machine.compilation import keep_compiled
from experiments.machine.interruption import RESUMABLE, Interrupted

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "the study's directory")
_ARMS = flags.DEFINE_list("arms", None, "which of the study's arms; all by default")
_SEEDS = flags.DEFINE_list("seeds", None, "which of the study's seeds; all by default")
_BUDGET = flags.DEFINE_float("budget", None, "minutes after which no further run is started")


def main(_: list[str]) -> None:
    """Runs the study that the flags name."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None or _WORKDIR.value is None:
        sys.exit("Give --config configs/studies/FILE.py and --workdir DIR.")
    command = shlex.join(["python", "-m", "experiments.compare", *sys.argv[1:]])
    keep_compiled()
    try:
        seeds = None if _SEEDS.value is None else [int(seed) for seed in _SEEDS.value]
        failed = compare(
            _CONFIG.value,
            _WORKDIR.value,
            arms=_ARMS.value,
            seeds=seeds,
            budget=_BUDGET.value,
            command=command,
        )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(RESUMABLE)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
