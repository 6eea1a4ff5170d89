"""Methods by name: what `config.method` may be."""

from __future__ import annotations

from typing import Any

from experiments.methods.motab import MotabOffline, MotabOnline
from experiments.methods.protocol import Method
from experiments.methods.sft import Sft
from experiments.pair import Pair
from experiments.workdir import Workdir

METHODS = ("motab", "sft")


def make_method(config: Any, pair: Pair, workdir: Workdir) -> Method:
    """The method that a config asks for.

    Raises:
      ValueError: there is none of that name, or its fields are out of range.
    """
    if config.method == "sft":
        return Sft(config, pair)
    if config.method == "motab":
        if config.synthesis.mode == "online":
            return MotabOnline(config, pair)
        if config.synthesis.mode == "offline":
            return MotabOffline(config, pair, workdir.path)
        raise ValueError(f"synthesis.mode={config.synthesis.mode!r}: online or offline.")
    raise ValueError(f"method={config.method!r}: choose one of {METHODS}.")
