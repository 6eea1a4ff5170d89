"""From a record of any schema to an `Example`, by a map of fields."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.data.conversations import hint as _hint
from experiments.data.conversations import is_conversation, only_message
from experiments.tasks.example import Example
from experiments.text.boxes import boxed_answer, find_boxes
from experiments.text.final_answer import BOXED, final_text, find_answer
from experiments.text.gsm8k import worked_answer

# Where a field is looked for, in this order, when the map does not name it. The others are left
# out then.
AUTODETECTED = {
    "problem": ("problem", "question", "prompt", "input"),
    "answer": (
        "answer",
        "final_answer",
        "expected_answer",
        "ground_truth",
        "reward_model.ground_truth",
    ),
    "reference": ("reference", "solution", "output"),
}
FIELDS = (*AUTODETECTED, "id", "source", "group", "choices")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLACE = re.compile(r"\{([^{}]+)\}")
# A place in a list, from the end where it is negative. Longer ones are no index of anything.
_INDEX = re.compile(r"-?\d{1,9}")


class BadRecord(ValueError):
    """A record that cannot be used; the message names file, line and field."""


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which fields of a record are what.

    Attributes:
      names: from `FIELDS` to a name in the record. `conversations.0.value` goes into lists and
        objects, `messages.-1.content` counts from the end; `{a} and {b}` writes several into a
        text; `choices` is a list, or several names with | between them, of which one has the
        answer.
      file: the data set's name in ids.
      source: the data set's name where the record does not say it.
      needs_answer: whether a record without an answer is a bad one. Only what is graded needs one.
      reading: of the examples.
    """

    names: Mapping[str, str]
    file: str
    source: str
    needs_answer: bool = False
    reading: str = BOXED

    def __post_init__(self):
        for name in self.names:
            if name not in FIELDS:
                raise ValueError(f"fields.{name}: only {', '.join(FIELDS)} can be mapped.")

    def __call__(self, record: Any, place: str, where: str) -> Example:
        """The example that a record holds.

        Args:
          place: of the record, as in `line 3`.
          where: the place for people.

        Raises:
          BadRecord: it has no problem, or no answer where one is needed, a field is no text, or it
            did not parse.
        """
        if isinstance(record, BadRecord):
            raise record
        if not isinstance(record, dict | list):
            raise BadRecord(
                f"{where}: a record must be an object or a list, not {type(record).__name__}."
            )
        problem = self._text(record, "problem", where)
        reference = self._text(record, "reference", where, optional="reference" not in self.names)
        answer = self._text(record, "answer", where, optional="answer" not in self.names)
        choices: tuple[str, ...] = ()
        if "choices" in self.names:
            choices, answer = self._choices(record, problem, answer, where)
            problem += "\n\n" + "\n".join(
                f"{x}) {c}" for x, c in zip(LETTERS, choices, strict=False)
            )
        else:
            answer, reference = _final_answer(answer, reference)
        if not answer and self.needs_answer:
            self._text(record, "answer", where)  # says which field is missing or empty
        return Example(
            id=self._other(record, "id", where) or f"{self.file}:{place.split()[-1]}",
            problem=problem,
            reference=reference,
            answer=answer,
            source=self._other(record, "source", where) or self.source,
            group=self._other(record, "group", where),
            choices=choices,
            reading=self.reading,
        )

    def _other(self, record: Any, field: str, where: str) -> str:
        return self._text(record, field, where) if field in self.names else ""

    def _text(self, record: Any, field: str, where: str, optional: bool = False) -> str:
        name = self.names.get(field)
        if name and _PLACE.search(name):
            parts = {place: _look_up(record, place, where) for place in _PLACE.findall(name)}
            # Where the first field is empty, so is the text.
            first, *_ = parts.values()
            return _PLACE.sub(lambda m: parts[m[1]] or "", name) if first else ""
        candidates: Sequence[str] = (name,) if name else AUTODETECTED[field]
        found = [(n, _look_up(record, n, where)) for n in candidates]
        present = [n for n, text in found if text is not None]
        for _, text in found:
            if text:
                return text
        if optional:
            return ""
        if present:
            raise BadRecord(
                f"{where}: field {present[0]!r} is empty. Fill it in, remove the record, or set "
                "on_error='skip'."
            )
        raise BadRecord(
            f"{where}: no field {_names(candidates)}; the record has {_names(_keys(record))}. Set "
            f"fields.{field} to the one that holds the {field}{_hint(record, field)}, or "
            "on_error='skip'."
        )

    def _choices(
        self, record: Any, problem: str, answer: str, where: str
    ) -> tuple[tuple[str, ...], str]:
        """The choices, and the letter of the right one."""
        name = self.names["choices"]
        if "|" in name:
            texts = [_look_up(record, n, where) or "" for n in name.split("|")]
            # As data sets name the right one first: an order of its own for every problem.
            texts.sort(key=lambda t: hashlib.sha256(f"{problem}\n{t}".encode()).digest())
        else:
            listed = _find(record, name)
            if not isinstance(listed, list):
                raise BadRecord(f"{where}: field {name!r} must be a list of choices.")
            texts = [str(t).strip() for t in listed]
        if not 2 <= len(texts) <= len(LETTERS):
            raise BadRecord(f"{where}: {len(texts)} choices; there must be 2 to {len(LETTERS)}.")
        if answer in texts:
            return tuple(texts), LETTERS[texts.index(answer)]
        if answer.upper() in LETTERS[: len(texts)] and len(answer) == 1:
            return tuple(texts), answer.upper()
        raise BadRecord(
            f"{where}: the answer {answer!r:.60} is neither a letter nor one of the choices."
        )


def _final_answer(answer: str, reference: str) -> tuple[str, str]:
    """The answer alone, and a reference: answer fields may hold a whole solution."""
    worked = worked_answer(answer)
    if worked:
        solution, answer = worked
        # The marker becomes a box, so that the reference is graded like any other text.
        reference = reference or f"{solution}\n\\boxed{{{answer}}}"
    boxed = boxed_answer(answer) if find_boxes(answer) else answer
    return boxed or find_answer(final_text(reference)) or "", reference


def _look_up(record: Any, name: str, where: str) -> str | None:
    """The text of a field; None where there is no such field."""
    value = _find(record, name)
    if value is _ABSENT:
        return None
    if is_conversation(value):
        try:
            value = only_message(value, name)
        except ValueError as error:
            raise BadRecord(f"{where}: {error}") from None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not isinstance(value, str) and not (number and _is_finite(value)):
        raise BadRecord(f"{where}: field {name!r} must be text or a number, not {value!r:.60}.")
    text = "" if value is None else str(value).strip()
    if not _is_unicode(text):
        raise BadRecord(f"{where}: field {name!r} holds half a surrogate pair, which is no text.")
    return text


def _find(record: Any, name: str) -> Any:
    """What lies at a path such as `messages.-1.content`, or `_ABSENT`.

    A record's own field comes first, also one with a dot in its name.
    """
    if isinstance(record, dict) and name in record:
        return record[name]
    value = record
    for part in name.split("."):
        if isinstance(value, list) and _INDEX.fullmatch(part):
            index = int(part)
            if not -len(value) <= index < len(value):
                return _ABSENT
            value = value[index]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return _ABSENT
    return value


def _is_finite(number: Any) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_ABSENT = object()


def _keys(record: Any) -> list[str]:
    """What a record calls its fields; of a list, the places in it."""
    return list(record) if isinstance(record, dict) else [str(i) for i in range(len(record))][:4]


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
