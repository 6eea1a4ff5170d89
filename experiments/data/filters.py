"""Which examples a data set keeps, and a report of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from experiments.data.contamination import Contamination, words
from experiments.tasks.example import Example


@dataclasses.dataclass(frozen=True)
class Filter:
    """What an example must be like. The defaults keep all.

    Attributes:
      where: `field=value`: of the records, only those; empty for all.
      min_problem, max_problem, max_reference: in characters; 0 for no bound.
      needs_reference: leave out examples without one.
      unique: of problems that read the same, keep the first.
      against: evaluation data sets, by name or path; what is in them is left out.
      ngram, overlap: as in `Contamination`, for `against`.
    """

    where: str = ""
    min_problem: int = 0
    max_problem: int = 0
    max_reference: int = 0
    needs_reference: bool = False
    unique: bool = False
    against: tuple[str, ...] = ()
    ngram: int = 13
    overlap: float = 0.5

    def __post_init__(self):
        for name in ("min_problem", "max_problem", "max_reference"):
            if getattr(self, name) < 0:
                raise ValueError(f"filter.{name}={getattr(self, name)} must be 0 (off) or more.")
        if self.where and not self.where.partition("=")[1]:
            raise ValueError(f"filter.where={self.where!r} must be of the form field=value.")
        if isinstance(self.against, str):
            raise ValueError(f"filter.against={self.against!r} must be a tuple of names.")
        Contamination((), self.ngram, self.overlap)

    def selects(self, record: Any) -> bool:
        """Whether `where` keeps a record."""
        field, _, value = self.where.partition("=")
        return not self.where or (isinstance(record, dict) and str(record.get(field)) == value)


@dataclasses.dataclass
class Report:
    """What became of a data set's records.

    Attributes:
      read: records that `where` selects.
      kept: examples.
      dropped: by reason, pairs of an example's id and more about it, or an empty text.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)

    def drop(self, reason: str, id_: str, detail: str = "") -> None:
        """Notes an example that is left out."""
        self.dropped.setdefault(reason, []).append((id_, detail))

    @property
    def summary(self) -> str:
        """One line."""
        left_out = f"; left out: {self.left_out}" if self.dropped else ""
        return f"{self.read:,} read, {self.kept:,} kept{left_out}"

    @property
    def left_out(self) -> str:
        """How many, by reason."""
        return ", ".join(f"{len(found):,} {reason}" for reason, found in self.dropped.items())


def keep(
    examples: Iterable[Example],
    rules: Filter,
    evaluation: Callable[[], Iterable[Example]],
    report: Report,
) -> Iterator[Example]:
    """The examples that `rules` keep, in order; the others go to the report.

    Args:
      evaluation: the examples of `rules.against`.
    """
    contamination = (
        Contamination(evaluation(), rules.ngram, rules.overlap) if rules.against else None
    )
    seen: dict[tuple[str, ...], str] = {}
    for example in examples:
        reason, detail = _length(example, rules), ""
        if not reason and rules.needs_reference and not example.reference:
            reason = "without a reference"
        if not reason and contamination is not None:
            detail = contamination.find(example.problem) or ""
            reason = "in the evaluation sets" if detail else ""
        if not reason and rules.unique:
            first = seen.setdefault(words(example.problem), example.id)
            if first != example.id:
                reason, detail = "duplicate", first
        if reason:
            report.drop(reason, example.id, detail)
        else:
            yield example


def _length(example: Example, rules: Filter) -> str:
    problem, reference = len(example.problem), len(example.reference)
    if problem < rules.min_problem:
        return "with too short a problem"
    if rules.max_problem and problem > rules.max_problem:
        return "with too long a problem"
    if rules.max_reference and reference > rules.max_reference:
        return "with too long a reference"
    return ""
