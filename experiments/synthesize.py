"""Writes a config's trajectories to a file, the first half of offline training alone:

python -m experiments.synthesize --config configs/motab.py --out trajectories.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.command.flags import parse_flags
from experiments.command.process_flags import join_processes
from experiments.config.checks import check_config
from experiments.machine.compilation import keep_compiled
from experiments.machine.interruption import RESUMABLE, Interrupted, interruptible
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import synthesise

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_OUT = flags.DEFINE_string("out", None, "the JSONL file; an interrupted one is completed")


def main(_: list[str]) -> None:
    """Synthesises what the config asks for."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None or _OUT.value is None:
        sys.exit("Give --config FILE and --out FILE.jsonl.")
    keep_compiled()
    try:
        check_config(_CONFIG.value)
        join_processes()
        with interruptible():
            pair = load_pair(_CONFIG.value)
            synthesise(_CONFIG.value, pair, make_recipe(_CONFIG.value, pair), Path(_OUT.value))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(RESUMABLE)
    print(f"Train on it with --config.synthesis.mode=offline --config.synthesis.file={_OUT.value}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
