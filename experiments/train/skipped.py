"""Steps that changed nothing: counted, and the end of the run where there are too many in a row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from safetensors.numpy import save

from experiments.command.say import say
from experiments.machine.processes import fetch, first_does
from experiments.methods.protocol import Outcome
from experiments.workdir.workdir import plain, write_atomic

# Where the batches of a run's directory go that it gave up on.
DIRECTORY = "skipped"


class TooManySkipped(RuntimeError):
    """Losses, gradients or updates were not finite, step after step."""


class Skipped:
    """Counts `skipped` and `idle` steps (see `distill.train.update.make_train_step`).

    Args:
      stop_after: how many skipped steps in a row end the run.
      workdir: of the run.
      console: where skipped steps are reported.

    Raises:
      ValueError: `stop_after` is not positive.
    """

    def __init__(self, stop_after: int, workdir: Path, console: Console):
        if stop_after < 1:
            raise ValueError(f"stop_after_skipped={stop_after} must be at least 1.")
        self._stop_after, self._directory, self._console = stop_after, workdir / DIRECTORY, console
        self._skipped = self._idle = self._in_a_row = 0

    @property
    def updates_missed(self) -> int:
        """Steps so far in which the optimiser did nothing."""
        return self._skipped + self._idle

    def count(self, step: int, metrics: Mapping[str, float], outcome: Outcome) -> None:
        """Takes in the metrics of a step.

        Raises:
          TooManySkipped: it is one too many; its batch is saved, and the message says where.
        """
        self._idle += int(metrics.get("idle", 0))
        if not metrics.get("skipped", 0):
            self._in_a_row = 0
            return
        self._skipped += 1
        self._in_a_row += 1
        what = f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}"
        say(self._console, f"Step {step} was skipped: {what}.")
        if self._in_a_row < self._stop_after:
            return
        path = self._keep(step, metrics, outcome)
        raise TooManySkipped(
            f"{self._in_a_row} steps in a row up to step {step} were skipped, because loss, "
            f"gradient or update was not finite ({what}). The batch of step {step} is in {path}. "
            "Lower optimizer.learning_rate or optimizer.clip_norm, compute in float32, or look for "
            "what is odd in the batch; stop_after_skipped is how many are put up with."
        )

    def get_state(self) -> dict[str, int]:
        """The counts, as JSON."""
        return {"skipped": self._skipped, "idle": self._idle, "in_a_row": self._in_a_row}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes on counting where a run stopped."""
        self._skipped, self._idle = state["skipped"], state["idle"]
        self._in_a_row = state["in_a_row"]

    def results(self) -> dict[str, int]:
        """For the run's results."""
        return {"skipped_steps": self._skipped, "idle_steps": self._idle}

    def _keep(self, step: int, metrics: Mapping[str, float], outcome: Outcome) -> Path:
        path = self._directory / f"step-{step}.safetensors"
        # All processes gather, one writes.
        inputs = fetch(outcome.inputs)
        rows = [] if outcome.readable is None else outcome.readable()
        about = {"step": str(step), "metrics": json.dumps(plain(metrics))}

        def write() -> None:
            self._directory.mkdir(exist_ok=True)
            write_atomic(path, save(named_arrays(inputs), about))
            if outcome.readable is not None:
                lines = "".join(json.dumps(plain(row)) + "\n" for row in rows)
                write_atomic(path.with_suffix(".jsonl"), lines.encode())

        first_does(write)
        return path


def named_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree on the host, by the dotted path that leads to them."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.ascontiguousarray(x)
        for path, x in leaves
    }
