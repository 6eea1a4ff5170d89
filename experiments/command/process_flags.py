"""Flags by which the processes of a run find each other where nothing else tells them."""

from __future__ import annotations

from absl import flags

from experiments.machine.processes import initialize

_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the first of several processes; not needed on TPU pods, under SLURM or Open MPI",
)
_COUNT = flags.DEFINE_integer("num_processes", None, "how many processes there are")
_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0")


def join_processes() -> None:
    """Joins the processes that the flags, or the machine, name; see `processes.initialize`."""
    initialize(_COORDINATOR.value, _COUNT.value, _ID.value)
