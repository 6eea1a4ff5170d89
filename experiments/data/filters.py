"""Which examples a data set keeps, and a report of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from experiments.config.data_sections import Filter
from experiments.data.contamination import Contamination, words
from experiments.tasks.example import Example


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
