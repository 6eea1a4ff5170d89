"""What the training loop asks of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from distill.train.state import TrainState
from models.parameters import Params

Readable = Callable[[], list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One update.

    Attributes:
      state: the new state.
      metrics: scalars on the device; reading them waits for the step.
      inputs: arrays that the train step was given besides parameters, as they were.
      readable: makes records of a few trajectories for people; None where there are none.
    """

    state: TrainState
    metrics: dict[str, jax.Array]
    inputs: Any
    readable: Readable | None = None


class Batches(Protocol):
    """An endless, checkpointable stream of batches."""

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class Method(Protocol):
    """A way to turn batches into updates."""

    @property
    def batches(self) -> Batches:
        """What the steps consume."""
        ...

    def init(self, params: Params) -> TrainState:
        """The state before the first update."""
        ...

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of that state."""
        ...

    def step(self, state: TrainState, batch: Any, step: int) -> Outcome:
        """Update number `step`, counted from 0. Donates `state`."""
        ...
