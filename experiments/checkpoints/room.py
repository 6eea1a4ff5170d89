"""Whether a run's checkpoints will fit on its disk, asked before any work."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path

import jax

import models
from experiments.config.sections import CheckpointSettings

# AdamW keeps two numbers as large as every one that trains.
_MOMENTS = 2


def check_room(settings: CheckpointSettings, student: models.ModelConfig, directory: Path) -> None:
    """Raises where the checkpoints to come would not fit beside what else is on the disk.

    A checkpoint holds at least parameters and moments in float32; `checkpoint.max_to_keep` of them
    stay, perhaps the best, and one is being written.

    Args:
      student: its architecture.
      directory: of the checkpoints; need not exist.

    Raises:
      OSError: there is no room; the message says how much is needed.
    """
    arrays = models.abstract(student)
    trains = [True] * len(jax.tree.leaves(arrays))
    if student.lora is not None:
        trains = jax.tree.leaves(models.trainable(arrays, student))
    each = sum(
        4 * math.prod(x.shape) * (1 + _MOMENTS * train)
        for x, train in zip(jax.tree.leaves(arrays), trains, strict=True)
    )
    count = settings.max_to_keep + bool(settings.keep_best) + 1
    there = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    free = shutil.disk_usage(directory if directory.exists() else directory.parent).free
    needed = max(0, count * each - there)
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{directory} needs room for {count} checkpoints of {_size(each)} "
            f"(checkpoint.max_to_keep={settings.max_to_keep}, keep_best={settings.keep_best}, and "
            f"the one being written): {_size(needed)} more, and {_size(free)} are free. Make room, "
            "lower checkpoint.max_to_keep, or use a --workdir on another disk",
        )


def _size(n: float) -> str:
    unit = min(3, int(math.log(max(n, 1), 1000)))
    return f"{n / 1000**unit:.1f} {('bytes', 'KB', 'MB', 'GB')[unit]}"
