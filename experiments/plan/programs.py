"""What a plan says of a run and of its programs."""

from __future__ import annotations

import dataclasses
import math

from experiments.plan.hlo import Cost

PROGRAMS = ("train", "rollout", "prefill")


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, per device: bytes that it adds to what lies there, and its cost."""

    temporary: int
    output: int
    cost: Cost
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes on one device, unless they are said to be in all.

    Attributes:
      groups: what lies on the devices throughout, by name: in all, and on a device.
      decoding: the copies of the parameters that a rollout decodes with.
      row: of all that a rollout holds of a row, on each of the devices that hold it.
      batch_parts: devices along the batch: each holds every so many-th part of the rows.
      programs: by name.
    """

    groups: dict[str, tuple[int, int]]
    decoding: int
    row: int
    batch_parts: int
    programs: dict[str, Program]

    @property
    def held(self) -> int:
        """What lies on a device throughout."""
        return sum(held for _, held in self.groups.values())

    def slots(self, memory: float) -> int:
        """Rows that can be written at the same time where a device has so many bytes."""
        chunk = self.programs.get("rollout")
        free = memory - self.held - self.decoding - (chunk.temporary if chunk else 0)
        return max(0, math.floor(free / self.row)) * self.batch_parts if self.row else 0
