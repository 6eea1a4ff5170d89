"""Flags by which the processes of a run find each other where nothing else tells them."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from experiments.command.flags import Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessFlags:
    """Not needed on TPU pods, under SLURM or under Open MPI."""

    coordinator: Annotated[
        str | None, Flag("the first of several processes of the run", "HOST:PORT")
    ] = None
    num_processes: Annotated[int | None, Flag("how many processes the run has")] = None
    process_id: Annotated[int | None, Flag("which of them this is, from 0")] = None

    def join(self) -> None:
        """Joins the processes that the flags, or the machine, name; see `processes.initialize`."""
        from experiments.machine.processes import initialize

        initialize(self.coordinator, self.num_processes, self.process_id)
