"""The data sets of a config, and which of their examples are kept."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from experiments.text.final_answer import BOXED, MODES
from models.checks import Count, at_least, between, check, one_of

ON_ERROR = ("raise", "skip")


@dataclasses.dataclass(frozen=True)
class Filter:
    """What an example must be like. The defaults keep all.

    Attributes:
      where: `field=value`: of the records, only those; empty for all.
      min_problem: fewest characters of a problem; 0 for no bound.
      max_problem: most characters of a problem; 0 for no bound.
      max_reference: most characters of a reference; 0 for no bound.
      needs_reference: leave out examples without one.
      unique: of problems that read the same, keep the first.
      against: evaluation data sets, by name or path; what is in them is left out.
      ngram: words of a run of text that is compared for `against`.
      overlap: share of n-grams in common from which a problem is left out for `against`.
    """

    where: str = ""
    min_problem: Annotated[int, at_least(0, "off")] = 0
    max_problem: Annotated[int, at_least(0, "off")] = 0
    max_reference: Annotated[int, at_least(0, "off")] = 0
    needs_reference: bool = False
    unique: bool = False
    against: tuple[str, ...] = ()
    ngram: Count = 13
    overlap: Annotated[float, between(0, 1, "(]")] = 0.5

    def __post_init__(self):
        check(self, "filter")
        if self.where and not self.where.partition("=")[1]:
            raise ValueError(f"filter.where={self.where!r} must be of the form field=value.")
        if isinstance(self.against, str):
            raise ValueError(f"filter.against={self.against!r} must be a tuple of names.")

    def selects(self, record: Any) -> bool:
        """Whether `where` keeps a record."""
        field, _, value = self.where.partition("=")
        return not self.where or (isinstance(record, dict) and str(record.get(field)) == value)


@dataclasses.dataclass(frozen=True)
class FieldSettings:
    """What a data set's records call their fields; empty where that is found by itself.

    Attributes:
      problem: field of the problem.
      answer: field of the final answer.
      reference: field of the worked solution.
      id: field of a name that tells records apart.
      source: field that says where a problem is from.
      group: field of what problems are grouped by.
      choices: field of a multiple-choice problem's options.
    """

    problem: str = ""
    answer: str = ""
    reference: str = ""
    id: str = ""
    source: str = ""
    group: str = ""
    choices: str = ""


Options = Annotated[int | None, at_least(0)]
_Share = Annotated[float | None, between(0, 1)]


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """A data set. The options of generated tasks are the task's own where they are not given.

    Attributes:
      name: a split of an embedded task, a known name, `hub:OWNER/NAME`, or a path; empty for none.
      path: a local copy of a known set.
      subset: of the hub's data set.
      split: of the hub's data set, or of a folder.
      size: how many examples at most, from the first; 0 for all.
      fields: what the records call their fields.
      answer: how a response's final answer is found: `boxed`, or `flexible` where no box is asked
        for.
      on_error: `raise`, or `skip` records that cannot be used.
      filter: which examples are kept.
      seed: generated tasks: another seed gives other problems.
      min_steps: generated tasks: fewest steps of a problem; 0 for the split's own.
      max_steps: generated tasks: most steps of a problem; 0 for the split's own.
      style: generated tasks: how the reference is written.
      misconceptions: generated tasks: how many one-step facts the reference's author holds wrong.
      misconception_rate: generated tasks: how often such a fact comes out wrong.
      misconception_seed: generated tasks: which facts those are.
      misconceptions_from: generated tasks: the first instance that suffers from them.
      reference_block: chains: share of problems that show a part of their reference.
      repairs: tales: how often a step slips and is repaired at once.
    """

    name: str
    path: str = ""
    subset: str = ""
    split: str = ""
    size: Annotated[int, at_least(0, "all")] = 0
    fields: FieldSettings = FieldSettings()
    answer: Annotated[str, one_of(*MODES)] = BOXED
    on_error: Annotated[str, one_of(*ON_ERROR)] = "raise"
    filter: Filter = Filter()
    seed: Options = None
    min_steps: Options = None
    max_steps: Options = None
    style: str | None = None
    misconceptions: Options = None
    misconception_rate: _Share = None
    misconception_seed: Options = None
    misconceptions_from: Options = None
    reference_block: _Share = None
    repairs: _Share = None

    @property
    def spec(self) -> dict[str, Any]:
        """As `experiments.data.sources.load_source` takes it."""
        return {name: x for name, x in dataclasses.asdict(self).items() if x is not None}


@dataclasses.dataclass(frozen=True)
class DataSets:
    """What is trained on, and what is measured.

    Attributes:
      train: what is trained on.
      validation: what is measured at every checkpoint.
      test: what is measured before and after training.
      long: the same, of problems longer than those trained on.
    """

    train: DataSettings
    validation: DataSettings | None = None
    test: DataSettings | None = None
    long: DataSettings | None = None

    def __post_init__(self):
        if not self.train.name:
            raise ValueError("data.train.name is empty: name what is trained on.")

    def measured(self) -> dict[str, DataSettings]:
        """The sets that are measured, by name, without those that are switched off."""
        sets = {"validation": self.validation, "test": self.test, "long": self.long}
        return {name: x for name, x in sets.items() if x is not None and x.name}
