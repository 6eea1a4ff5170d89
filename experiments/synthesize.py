"""Writes a config's trajectories to a file: the first half of offline training, alone.

    python -m experiments.synthesize --config configs/motab.py --out trajectories.jsonl

The same command again completes an interrupted file.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from experiments.command.command import command
from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import Flag
from experiments.command.process_flags import ProcessFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ConfigFlags, ProcessFlags):
    """What to write, and where."""

    out: Annotated[
        Path | None, Flag("the file; an interrupted one is completed (required)", "FILE.jsonl")
    ] = None


def run(settings: Settings) -> None:
    """Synthesizes what the config asks for.

    Raises:
      ValueError: the config does not fit, its method writes no trajectories, or there is no file to
        write them to.
    """
    from experiments.config.read import read_config
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible
    from experiments.machine.processes import is_first
    from experiments.methods import make_recipe, require_writing
    from experiments.pair.pair import load_pair
    from experiments.rollouts.synthesis import synthesise

    config = read_config(settings.config.fields)
    if settings.out is None:
        raise ValueError("--out is missing: name the file that trajectories are written to.")
    writing = require_writing(config)
    keep_compiled()
    settings.join()
    with interruptible():
        if is_first():
            print("Loading the models.", flush=True)
        pair = load_pair(config)
        synthesise(writing, pair, make_recipe(writing, pair), settings.out)
    print(
        f"Train on it with --config.synthesis.mode=offline --config.synthesis.file={settings.out}"
    )


main = command("synthesize", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
