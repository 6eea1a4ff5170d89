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

    out: Annotated[Path, Flag("the file; an interrupted one is completed", "FILE.jsonl")]


def run(settings: Settings) -> None:
    """Synthesizes what the config asks for."""
    from experiments.config.read import read_config
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible
    from experiments.methods import make_recipe
    from experiments.pair.pair import load_pair
    from experiments.rollouts.synthesis import synthesise

    config = settings.config.fields
    keep_compiled()
    read_config(config)
    settings.join()
    with interruptible():
        pair = load_pair(config)
        synthesise(config, pair, make_recipe(config, pair), settings.out)
    print(
        f"Train on it with --config.synthesis.mode=offline --config.synthesis.file={settings.out}"
    )


main = command("synthesize", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
