"""A run's directory that several processes share: the first one writes, the others look on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.machine.processes import any_process, first_does
from experiments.workdir.run_config import CONFIG, config_dict, identity
from experiments.workdir.workdir import Workdir
from models.paths import local_path


class Follower(Workdir):
    """A run's directory as all processes but the first have it: they lock and write nothing."""

    def __init__(self, path: str | os.PathLike[str], config: Any):
        self.path = local_path(path, "workdir").resolve()
        self._begin()
        self._fields = config_dict(config)
        self.identity = identity(self._fields)
        self.changed = []
        self._lock = None

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def append_trajectories(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Nothing."""

    def mark(self) -> dict[str, Any]:
        """Nothing: the first process has it."""
        return {}

    def cut_back(self, step: int, mark: Mapping[str, Any] | None = None) -> list[str]:
        """Nothing."""
        return []

    def check_logs(self, steps: int) -> list[str]:
        """Nothing."""
        return []

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Nothing."""

    def write_samples(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Nothing."""


def open_workdir(path: str | os.PathLike[str], config: Any) -> Workdir:
    """The directory, open for writing on the first process and to be looked at on the others.

    Raises:
      ValueError, RuntimeError, TypeError, OSError: as `Workdir`, on the first process.
      RuntimeError: on the others, where the first could not open it; or they do not see it.
    """
    first = first_does(lambda: Workdir(path, config))
    here = Follower(path, config) if first is None else first
    if any_process(not (here.path / CONFIG).is_file()):
        here.close()
        raise RuntimeError(
            f"{here.path} is not on a file system that all processes share: checkpoints are "
            "written by all of them. Use another --workdir."
        )
    return here
