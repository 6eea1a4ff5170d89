"""Runs a config: `python -m experiments.run --config configs/motab.py [--workdir DIR]`.

`--config FILE:ARG` picks a variant and `--config.field=value` sets a field. Running again on the
same workdir resumes. On SIGTERM or Ctrl-C it finishes the step, saves and exits with 75; on the second
it exits at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.command.flags import parse_flags
from experiments.command.process_flags import join_processes
from experiments.machine.compilation import keep_compiled
from experiments.machine.interruption import RESUMABLE, Interrupted
from experiments.train.loop import run

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory; runs/CONFIG[-ARG] by default")


def default_workdir(config_flag: str) -> Path:
    """`configs/motab.py:smoke` runs in `runs/motab-smoke`."""
    name, _, arg = config_flag.partition(":")
    return Path("runs") / (f"{Path(name).stem}-{arg}" if arg else Path(name).stem)


def main(_: list[str]) -> None:
    """Runs the config that the flags name."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None:
        sys.exit("Which config? For example: --config configs/motab.py")
    keep_compiled()
    flag = config_flags.get_config_filename(flags.FLAGS["config"])
    try:
        join_processes()
        run(_CONFIG.value, _WORKDIR.value or default_workdir(flag))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(RESUMABLE)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
