"""From a record of any schema to an `Example`, by a map of fields."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.grading import last_boxed
from experiments.tasks.example import Example

# Where a field is looked for, in this order, when the map does not name it. The others are left
# out then.
AUTODETECTED = {
    "problem": ("problem", "question", "prompt", "input"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "reference": ("reference", "solution", "output"),
}
FIELDS = (*AUTODETECTED, "id", "source", "group", "choices")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# GSM8K: the worked answer ends in "#### 42" and carries calculator notes "<<6*7=42>>".
_GSM8K_ANSWER = re.compile(r"\n?####\s*(\S[^\n]*?)\s*$")
_GSM8K_NOTE = re.compile(r"<<[^<>\n]*>>")
_PLACE = re.compile(r"\{([^{}]+)\}")


class BadRecord(ValueError):
    """A record that cannot be used; the message names file, line and field."""


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Which fields of a record are what.

    Attributes:
      names: from `FIELDS` to a name in the record. `conversations.0.value` goes into lists and
        objects; `{a} and {b}` writes several into a text; `choices` is a list, or several names
        with | between them, of which one has the answer.
      file: the data set's name in ids.
      source: the data set's name where the record does not say it.
    """

    names: Mapping[str, str]
    file: str
    source: str

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
          BadRecord: it has no problem or no answer, a field is no text, or it did not parse.
        """
        if isinstance(record, BadRecord):
            raise record
        if not isinstance(record, dict):
            raise BadRecord(f"{where}: a record must be an object, not {type(record).__name__}.")
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
        if not answer:
            self._text(record, "answer", where)  # says which field is missing or empty
        return Example(
            id=self._other(record, "id", where) or f"{self.file}:{place.split()[-1]}",
            problem=problem,
            reference=reference,
            answer=answer,
            source=self._other(record, "source", where) or self.source,
            group=self._other(record, "group", where),
            choices=choices,
        )

    def _other(self, record: dict[str, Any], field: str, where: str) -> str:
        return self._text(record, field, where) if field in self.names else ""

    def _text(self, record: dict[str, Any], field: str, where: str, optional: bool = False) -> str:
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
            f"{where}: no field {_names(candidates)}; the record has {_names(list(record))}. Set "
            f"fields.{field} to the one that holds the {field}, or on_error='skip'."
        )

    def _choices(
        self, record: dict[str, Any], problem: str, answer: str, where: str
    ) -> tuple[tuple[str, ...], str]:
        """The choices, and the letter of the right one."""
        name = self.names["choices"]
        if "|" in name:
            texts = [_look_up(record, n, where) or "" for n in name.split("|")]
            # As data sets name the right one first: an order of its own for every problem.
            texts.sort(key=lambda t: hashlib.sha256(f"{problem}\n{t}".encode()).digest())
        else:
            listed = record.get(name)
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
    worked = _GSM8K_ANSWER.search(answer)
    if worked:
        answer, solution = worked[1].replace(",", ""), answer[: worked.start()]
        # The marker becomes a box, so that the reference is graded like any other text.
        reference = reference or f"{_GSM8K_NOTE.sub('', solution)}\n\\boxed{{{answer}}}"
    boxed = last_boxed(answer)
    return boxed or answer or last_boxed(reference) or "", reference


def _look_up(record: Any, name: str, where: str) -> str | None:
    """The text of a field; None where there is no such field."""
    value = record.get(name, _ABSENT) if isinstance(record, dict) else _ABSENT
    if value is _ABSENT and "." in name:
        value = record
        for part in name.split("."):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                return None
    if value is _ABSENT:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not isinstance(value, str) and not (number and _is_finite(value)):
        raise BadRecord(f"{where}: field {name!r} must be text or a number, not {value!r:.60}.")
    text = "" if value is None else str(value).strip()
    if not _is_unicode(text):
        raise BadRecord(f"{where}: field {name!r} holds half a surrogate pair, which is no text.")
    return text


def _is_finite(number: Any) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_ABSENT = object()


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
