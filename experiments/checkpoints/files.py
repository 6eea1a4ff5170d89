"""What lies beside a checkpoint's arrays, sealed, and which checkpoints there are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.checkpoints.orbax_log import quiet
from experiments.workdir.files import as_object, read_regular

# What a checkpoint may be called instead of its step.
NAMED = ("final", "best")
# A step as it is written; `007` and the like are nobody's checkpoints.
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")


class UnreadableCheckpoint(ValueError):
    """A checkpoint is damaged: files are missing, cut short or garbled."""


def find_step(directory: str | os.PathLike[str], which: int | str) -> int:
    """The step that "final", "best" or a number stands for.

    Raises:
      FileNotFoundError: there is no such checkpoint.
    """
    steps = checkpoint_steps(Path(directory))
    if not steps:
        raise FileNotFoundError(f"There is no checkpoint in {directory}.")
    if which == "final":
        return steps[-1]
    if which == "best":
        measured = [(a, s) for s in steps if (a := read_accuracy(Path(directory), s)) is not None]
        if not measured:
            raise FileNotFoundError(
                f"No checkpoint in {directory} was validated, so none is the best. "
                'Ask for "final" or a step.'
            )
        return max(measured)[1]
    if int(which) not in steps:
        there = ", ".join(map(str, steps))
        raise FileNotFoundError(f"There is no checkpoint {which} in {directory}, but {there}.")
    return int(which)


def checkpoint_steps(directory: Path) -> list[int]:
    """The steps with a whole checkpoint, in order."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _STEP.fullmatch(path.name))


def read_accuracy(directory: Path, step: int) -> float | None:
    """What a checkpoint scored; None where it was not validated."""
    accuracy = read_run(directory / str(step))["accuracy"]
    path = directory / str(step) / "metrics" / "metrics"  # what orbax goes by
    try:
        there = json.loads(read_regular(path))["accuracy"] if path.exists() else None
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableCheckpoint(f"{path} is garbled.") from error
    if there != accuracy:
        raise UnreadableCheckpoint(f"{path} says {there}, but {accuracy} was measured.")
    return accuracy


def sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON with a checksum of its own."""
    text = json.dumps(fields, sort_keys=True).encode()
    return {**fields, "digest": hashlib.blake2b(text, digest_size=12).hexdigest()}


def read_run(path: Path) -> dict[str, Any]:
    """What lies beside the arrays of a checkpoint: `step`, `run_state`, `accuracy`, `checksums`.

    Raises:
      UnreadableCheckpoint: it is damaged, or was written as another step than its name says.
      ValueError: an earlier version wrote it.
    """
    file = path / "run" / "metadata"
    with reading(path):
        run = as_object(json.loads(read_regular(file)), str(file))
        digest = run.pop("digest", None)
        damaged = sealed(run)["digest"] != digest
    earlier = "checksums" not in run if damaged else "step" not in run
    if earlier and (digest is None or not damaged):
        raise ValueError(
            f"{path} has no checksums: an earlier version of this code wrote it. Use another "
            "--workdir, or that version."
        )
    if damaged:
        raise UnreadableCheckpoint(f"{file} is not what was written.")
    if str(run["step"]) != path.name:
        raise UnreadableCheckpoint(
            f"{path} holds the checkpoint of step {run['step']}: it was renamed or swapped."
        )
    return run


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tells damage from trouble of the machine, which says nothing about the checkpoint."""
    try:
        with quiet():
            yield
    except (PermissionError, MemoryError, InterruptedError):
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise UnreadableCheckpoint(f"{path}: {type(error).__name__}: {text}") from error
