"""A study as one frozen tree, read from a config of `configs/studies/` before anything is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from experiments.checkpoints.files import NAMED
from experiments.config.reading import read_section
from experiments.config.tree import Seed
from models.checks import Count, above, at_least, check, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """One way to train: a config, and what the study changes in it.

    Attributes:
      config: a file of `configs/`.
      arg: the file's argument.
      label: what tables call the arm; empty for its name.
      set: fields of that config, by section, set on top of what the study shares.
    """

    config: str
    arg: str = ""
    label: str = ""
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Which arms are compared, and by which rules.

    Attributes:
      title: of the table.
      arms: by name, in the table's order.
      references: arms whose accuracy is subtracted from that of the others.
      sweep: arms that differ in `motab.gamma_0` alone.
      monitor: arms whose breaches and values are drawn.
      exposures: arms of `experiments.exposure_sweep`, which differ in `controller.fixed` alone.
      revision_text: what a correction begins with; empty where nothing announces one.
      seeds: of the runs that count.
      learning_rates: the grid that every arm's rate is chosen from, on validation.
      selection_seed: of the runs that choose a rate, which see no test set.
      checkpoint: which one counts: `final`, or `best` on validation.
      updates: of every run.
      tokens_per_update: what every arm's batch is fitted to, with the initial student; 0 leaves all
        at `batch_size`.
      batch_size: trajectories of an update; where batches are fitted, those of the measurement.
      shared: fields set in every arm first.
    """

    title: str
    arms: Mapping[str, ArmSettings]
    references: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    monitor: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()
    revision_text: str = ""
    seeds: tuple[Seed, ...]
    learning_rates: tuple[Annotated[float, above(0)], ...]
    selection_seed: Seed
    checkpoint: Annotated[str, one_of(*NAMED)] = "final"
    updates: Count
    tokens_per_update: Annotated[float, at_least(0, "batches of batch_size")] = 0
    batch_size: Count
    shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check(self)
        if not self.arms:
            raise ValueError("arms: a study needs at least one.")
        for name in self.arms:
            if Path(name).name != name:
                raise ValueError(f"arms: {name!r} cannot name a directory.")
        for field, values in (("seeds", self.seeds), ("learning_rates", self.learning_rates)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field}={list(values)}: give at least one, each once.")
        if self.selection_seed in self.seeds:
            raise ValueError(
                f"selection_seed={self.selection_seed} is one of the seeds: learning rates would "
                "be chosen on a run that counts."
            )
        for field in ("references", "sweep", "monitor", "exposures"):
            for name in getattr(self, field):
                if name not in self.arms:
                    raise ValueError(
                        f"{field}: {name!r} is not an arm; there are {', '.join(self.arms)}."
                    )

    def label(self, arm: str) -> str:
        """What tables call an arm."""
        return self.arms[arm].label or arm


def read_study(fields: Mapping[str, Any]) -> Study:
    """The tree of a study, each field known and in range.

    What `shared` and `set` name is looked for in the configs of the arms, by `make_plan`.

    Args:
      fields: a `ConfigDict`, or nested dicts.

    Raises:
      ValueError: names the field with its whole path, and where it is unknown the nearest one.
    """
    return read_section(Study, fields)
