"""Several processes that run the same program on one mesh: what each holds, and who writes.

Every process runs the same code on the same host data, and so decides alike: which rows are drawn,
which slots are refilled, when a checkpoint is due. What differs is which rows of a batch it puts on
its devices, and that the first one alone writes files, except for checkpoints, of which every
process writes its own parts. Arrays that a host reads are gathered, by all at the same time.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from distill.train.sharding import batch_sharding

T = TypeVar("T")


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run; call it before anything asks jax for devices.

    On TPU pods, under SLURM and under Open MPI they find each other by themselves.

    Args:
      coordinator: HOST:PORT of the first process. None: as the machine says, or alone.
      num_processes, process_id: how many there are, and which this is, from 0.

    Raises:
      ValueError: only some of the three are given, or the number is out of range.
      RuntimeError: the processes did not find each other.
    """
    given = [x is not None for x in (coordinator, num_processes, process_id)]
    if not any(given):
        if _on_a_cluster():
            jax.distributed.initialize()
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            "--coordinator=HOST:PORT, --num_processes and --process_id go together. On TPU pods "
            "and under SLURM or Open MPI none of them is needed."
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id={process_id} must lie in 0 to {num_processes - 1}.")
    jax.distributed.initialize(coordinator, num_processes, process_id)


def _on_a_cluster() -> bool:
    """Whether jax knows how the processes find each other here, and there may be several."""
    for variable in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        if os.environ.get(variable, "1") not in ("", "1"):
            return True
    chips = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def place_rows(batch: T, mesh: Mesh | None) -> T:
    """A batch with rows first on the devices, rows divided over the batch's axes.

    Every process passes the whole batch, as host arrays; its devices get their own rows of it. What
    lies on the mesh already stays there.
    """
    if mesh is None:
        return jax.device_put(batch)
    sharding = batch_sharding(mesh)

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.jit(lambda x: x, out_shardings=sharding)(x)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, batch)


def fetch(tree: T) -> T:
    """Host copies of arrays, whole on every process.

    All processes must call it, in the same order.
    """

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.device_get(tree if jax.process_count() == 1 else jax.tree.map(whole, tree))


def first_does(action: Callable[[], T]) -> T | None:
    """The first process does it, and the others wait: what it wrote is there for all to read.

    Returns:
      What the action returned, on the first process; None on others.

    Raises:
      RuntimeError: on the others, where it failed on the first, which raises its own error.
    """
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    if is_first():
        try:
            result = action()
        except Exception as problem:
            error = problem
    failed = multihost_utils.broadcast_one_to_all(np.asarray(error is not None))
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("The first process could not go on: see what it says.")
    return result


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any of the processes. All of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
