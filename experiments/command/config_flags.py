"""Flags of the commands that take the config of a run."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from experiments.command.config_file import ConfigFile
from experiments.command.flags import Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFlags:
    """The config of a run, and whether it is only shown."""

    config: Annotated[
        ConfigFile, Flag("such as configs/motab.py or configs/motab.py:smoke", "FILE[:ARG]")
    ]
    print_config: Annotated[
        bool, Flag("shows every field of the config with its meaning, and ends")
    ] = False

    def show(self) -> None:
        """Prints the config as it was read, defaults included.

        Raises:
          ValueError: a field is unknown or out of range.
        """
        from experiments.config.describe import config_text
        from experiments.config.read import read_config

        print(config_text(read_config(self.config.fields)))
