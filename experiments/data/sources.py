"""Data sets by name: the embedded task, or a local JSON or JSONL file of problems."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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


class Source(Protocol):
    """What grain asks of a random-access source, and iteration in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]: ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Examples read from a file, in file order.

    Attributes:
      dropped: records left out because they lack a problem or an answer.
    """

    examples: tuple[Example, ...]
    dropped: int = 0

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
        `incomplete`: for files, `error` or `drop` for records without problem or answer;
        and for the chain task the options of `ChainSource`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an option that is unknown or has no effect here; or, with file and line, a record
        that does not parse or lacks a field.
    """
    options = dict(spec)
    name = str(options.pop("name", ""))
    incomplete = options.pop("incomplete", "error")
    if incomplete not in ("error", "drop"):
        raise ValueError(f"incomplete={incomplete!r} is neither 'error' nor 'drop'.")
    fields = {k: v for k, v in dict(options.pop("fields", None) or {}).items() if v}
    unknown = sorted(set(options) - set(_CHAIN_OPTIONS))
    if unknown:
        raise ValueError(
            f"Data set {name!r}: unknown option {unknown[0]!r}; there are name, size, fields, "
            f"incomplete and, for the chain task, {', '.join(_CHAIN_OPTIONS)}."
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
    return _read(Path(name), fields, size, drop=incomplete == "drop")


class IncompleteRecord(ValueError):
    """A record without a problem or an answer."""


def _read(path: Path, fields: dict[str, str], size: int, drop: bool) -> FileSource:
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
    examples: list[Example] = []
    dropped = 0
    for place, record in _records(path):
        try:
            examples.append(_example(record, fields, path, place))
        except IncompleteRecord:
            if not drop:
                raise
            dropped += 1
        if size and len(examples) == size:
            break
    if not examples:
        raise ValueError(f"{path} holds no usable records ({dropped} lack a problem or an answer).")
    return FileSource(tuple(examples), dropped)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Pairs of a place, such as `line 3`, and the record there."""
    if path.suffix == ".json":
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}.") from None
        if not isinstance(records, list):
            raise ValueError(f"{path} must hold a list of records; use .jsonl for one per line.")
        for number, record in enumerate(records, 1):
            yield f"record {number}", record
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: not valid JSON ({error}). Repair or remove the line."
                ) from None


def _example(record: Any, fields: dict[str, str], path: Path, place: str) -> Example:
    where = f"{path}, {place}"
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a record must be an object, not {type(record).__name__}.")
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
        if value is not None and not isinstance(value, str | int | float):
            raise ValueError(
                f"{where}: field {name!r} must be text or a number, not {value!r:.60}."
            )
        text = "" if value is None else str(value).strip()
        if text:
            return text
    if optional:
        return ""
    if present:
        raise IncompleteRecord(
            f"{where}: field {present[0]!r} is empty. Fill it in, remove the record, or set "
            "incomplete='drop'."
        )
    raise IncompleteRecord(
        f"{where}: no field {_names(candidates)}; the record has {_names(list(record))}. Set "
        f"fields.{field} to the one that holds the {field}, or incomplete='drop'."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
