"""Data sets by name: the embedded task, or a local JSON or JSONL file of problems."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from experiments.data.chain import SPLITS, ChainSource
from experiments.data.example import Example
from experiments.grading import last_boxed

# Where a field is looked for, in this order, when `fields` does not name it.
AUTODETECTED = {
    "problem": ("problem", "question", "prompt", "input"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "reference": ("reference", "solution", "output"),
}
CHAIN_NAMES = tuple(f"chain/{split}" for split in SPLITS)
_CHAIN_OPTIONS = {f.name: f.default for f in dataclasses.fields(ChainSource) if f.name != "split"}
# GSM8K: the worked answer ends in "#### 42" and carries calculator notes "<<6*7=42>>".
_GSM8K_ANSWER = re.compile(r"\n?####\s*(\S[^\n]*?)\s*$")
_GSM8K_NOTE = re.compile(r"<<[^<>\n]*>>")

ON_ERROR = ("raise", "skip")

T = TypeVar("T")
log = logging.getLogger(__name__)


class Source(Protocol):
    """What grain asks of a random-access source, and iteration in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]: ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Examples read from a file, in file order.

    Attributes:
      dropped: records left out because something was wrong with them.
      on_error: what the config says to do about others that turn out to be: `raise` or `skip`.
    """

    examples: tuple[Example, ...]
    dropped: int = 0
    on_error: str = "raise"

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


def load_source(spec: Mapping[str, Any]) -> Source:
    """The data set that `spec` describes.

    Args:
      spec: a dict or ConfigDict with
        `name`: `chain/train|validation|test|long`, or the path of a `.jsonl` or `.json` file (a
          list of records);
        `size`: how many examples at most, from the first; 0 for all;
        `fields`: for files, a map from `problem`, `answer`, `reference` to names of fields; those
          not given are looked for under the names in `AUTODETECTED`;
        `on_error`: for files, what to do about a record that does not parse, lacks a problem or an
          answer, or has one that is no text: `raise`, or `skip` it and say how many there were;
        and for the chain task the options of `ChainSource`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an option that is unknown or has no effect here; or, with file and line, a record
        that does not parse or lacks a field.
    """
    options = dict(spec)
    name = str(options.pop("name", ""))
    on_error = options.pop("on_error", "raise")
    if on_error not in ON_ERROR:
        raise ValueError(f"Data set {name!r}: on_error={on_error!r} is neither 'raise' nor 'skip'.")
    fields = {k: v for k, v in dict(options.pop("fields", None) or {}).items() if v}
    unknown = sorted(set(options) - set(_CHAIN_OPTIONS))
    if unknown:
        raise ValueError(
            f"Data set {name!r}: unknown option {unknown[0]!r}; there are name, size, fields, "
            f"on_error and, for the chain task, {', '.join(_CHAIN_OPTIONS)}."
        )
    if name.startswith("chain/"):
        if name not in CHAIN_NAMES:
            raise ValueError(f"Data set {name!r} is not one of {', '.join(CHAIN_NAMES)}.")
        if fields:
            raise ValueError(f"Data set {name!r} has no fields to map; remove `fields`.")
        return ChainSource(split=name.removeprefix("chain/"), **options)
    size = options.pop("size", 0)
    idle = [k for k, v in options.items() if k != "seed" and v != _CHAIN_OPTIONS[k]]
    if idle:
        raise ValueError(
            f"Data set {name!r} is a file: {idle[0]}={options[idle[0]]!r} is an option of the "
            "chain task only; remove it."
        )
    return _read(Path(name), fields, size, on_error)


class BadRecord(ValueError):
    """A record that cannot be used; the message names file, line and field."""


def keep_good(
    path: str, items: Iterable[T], use: Callable[[T], Example], on_error: str, dropped: int = 0
) -> FileSource:
    """The examples that `use` makes of records, or finds nothing wrong with.

    Args:
      path: of the file, for messages.
      use: raises `ValueError` where one is no good.
      on_error: `raise`, or `skip` those and log how many there were.
      dropped: how many were dropped before.

    Raises:
      ValueError: as `use` does; or no example is left.
    """
    examples: list[Example] = []
    first, bad = "", 0
    for item in items:
        try:
            examples.append(use(item))
        except ValueError as error:
            if on_error == "raise":
                raise
            first, bad = first or str(error), bad + 1
    if bad:
        log.warning("%s: skipped %d records, of which the first: %s", path, bad, first)
    if not examples:
        raise ValueError(f"{path} holds no usable records ({dropped + bad} were skipped).")
    return FileSource(tuple(examples), dropped + bad, on_error)


def _read(path: Path, fields: dict[str, str], size: int, on_error: str) -> FileSource:
    if path.suffix not in (".jsonl", ".json"):
        raise ValueError(
            f"Data set {str(path)!r} is neither {', '.join(CHAIN_NAMES)} nor the path of a .jsonl "
            "or .json file."
        )
    if not path.is_file():
        raise FileNotFoundError(f"Data set {path}: there is no such file.")
    strange = sorted(set(fields) - set(AUTODETECTED))
    if strange:
        raise ValueError(f"fields.{strange[0]}: only {', '.join(AUTODETECTED)} can be mapped.")
    if size < 0:
        raise ValueError(f"size={size} must be 0 (all) or more.")

    found = 0

    def use(placed: tuple[str, Any]) -> Example:
        nonlocal found
        example = _example(placed[1], fields, path, placed[0])
        found += 1
        return example

    records = itertools.takewhile(lambda _: not size or found < size, _records(path))
    return keep_good(str(path), records, use, on_error)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Pairs of a place, such as `line 3`, and the record there, or what was wrong with it."""
    if path.suffix == ".json":
        try:
            records = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}.") from None
        if not isinstance(records, list):
            raise ValueError(f"{path} must hold a list of records; use .jsonl for one per line.")
        for number, record in enumerate(records, 1):
            yield f"record {number}", record
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield (
                    f"line {number}",
                    BadRecord(
                        f"{path}, line {number}: not valid JSON ({error}). Repair or remove the line, "
                        "or set on_error='skip'."
                    ),
                )


def _example(record: Any, fields: dict[str, str], path: Path, place: str) -> Example:
    where = f"{path}, {place}"
    if isinstance(record, BadRecord):
        raise record
    if not isinstance(record, dict):
        raise BadRecord(f"{where}: a record must be an object, not {type(record).__name__}.")
    problem = _field(record, "problem", fields, where)
    reference = _field(record, "reference", fields, where, optional="reference" not in fields)
    answer = _field(record, "answer", fields, where, optional="answer" not in fields)
    worked = _GSM8K_ANSWER.search(answer)
    if worked:
        answer, solution = worked[1].replace(",", ""), answer[: worked.start()]
        # The marker becomes a box, so that the reference is graded like any other text.
        reference = reference or f"{_GSM8K_NOTE.sub('', solution)}\n\\boxed{{{answer}}}"
    answer = answer or last_boxed(reference) or ""
    if not answer:
        _field(record, "answer", fields, where)  # says which field is missing or empty
    return Example(f"{path.name}:{place.split()[-1]}", problem, reference, answer, path.stem)


def _field(
    record: dict[str, Any], field: str, fields: dict[str, str], where: str, optional: bool = False
) -> str:
    candidates: Sequence[str] = (fields[field],) if field in fields else AUTODETECTED[field]
    present = [name for name in candidates if name in record]
    for name in present:
        value = record[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not isinstance(value, str) and not (number and _is_finite(value)):
            raise BadRecord(f"{where}: field {name!r} must be text or a number, not {value!r:.60}.")
        text = "" if value is None else str(value).strip()
        if not _is_unicode(text):
            raise BadRecord(
                f"{where}: field {name!r} holds half a surrogate pair, which is no text."
            )
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


def _is_finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
