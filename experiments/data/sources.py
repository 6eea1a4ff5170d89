"""Data sets by name: the embedded task, known sets, the hub, or files of problems."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from experiments.config.data_sections import ON_ERROR
from experiments.config.reading import read_section
from experiments.data.catalogue import CATALOGUE, Known
from experiments.data.fields import BadRecord, FieldMap
from experiments.data.filters import Filter, Report, keep
from experiments.data.records import HUB, SUFFIXES, Records, file_records, hub_records
from experiments.tasks.chain import SPLITS, ArithmeticSource, ChainSource
from experiments.tasks.example import Example
from experiments.tasks.tale import TaleSource
from experiments.text.final_answer import BOXED, MODES
from models.paths import local_path

# Tasks that are generated, by the first part of their names.
GENERATED: dict[str, type[ArithmeticSource]] = {
    "chain": ChainSource,
    "tale": TaleSource,
}
GENERATED_NAMES = tuple(f"{task}/{split}" for task in GENERATED for split in SPLITS)
SAMPLES = Path(__file__).resolve().parent / "samples"
# Small samples that come with the project.
SAMPLE_NAMES = tuple(f"sample/{name}" for name in ("gsm8k", "math"))
# By option, the defaults of the tasks that know it: an option may be set to one of them anywhere,
# so that configs can name all.
_OPTIONS: dict[str, list[Any]] = {}
for _task in GENERATED.values():
    for _field in dataclasses.fields(_task):
        if _field.name != "split":
            _OPTIONS.setdefault(_field.name, []).append(_field.default)

UNUSABLE = "that cannot be used"

log = logging.getLogger(__name__)


class Source(Protocol):
    """What grain asks of a random-access source, and iteration in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]: ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Examples in memory, in the order of the records.

    Attributes:
      dropped: records left out because something was wrong with them.
      on_error: what the config says to do about others that turn out to be: `raise` or `skip`.
      report: what was read, and all that was left out.
    """

    examples: tuple[Example, ...]
    dropped: int = 0
    on_error: str = "raise"
    report: Report = dataclasses.field(default_factory=Report)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


def load_source(spec: Mapping[str, Any], needs_answer: bool = False) -> Source:
    """The data set that `spec` describes.

    Args:
      spec: a dict or ConfigDict with
        `name`: `chain/train|validation|test|long`, `tale/...` likewise; a name of `CATALOGUE`;
          `sample/gsm8k` or `sample/math`; `hub:OWNER/NAME`; or the path of a .jsonl, .json (a list
          of records) or .parquet file, or of a folder of them;
        `path`: a local copy to read in place of the hub, for names of `CATALOGUE`;
        `subset`, `split`: of the hub's data set, or of a folder;
        `size`: how many examples at most, from the first; 0 for all;
        `fields`: as in `FieldMap`; those not given are looked for under the names in
          `fields.AUTODETECTED`;
        `answer`: how a response's final answer is found: `boxed`, or `flexible` where the prompt
          asks for no box (`experiments.text.final_answer.find_answer`);
        `on_error`: what to do about a record that does not parse, lacks a problem or an answer that
          is needed, or has one that is no text: `raise`, or `skip` it and say how many there were;
        `filter`: the fields of `Filter`;
        and for generated tasks the options of `ChainSource` and `TaleSource`.
      needs_answer: whether responses are graded, so that every record must hold an answer.

    Raises:
      FileNotFoundError: no such file.
      ImportError: a library for this kind of data is missing.
      ValueError: an option that is unknown or has no effect here; or, with file and line, a record
        that does not parse or lacks a field.
    """
    options = dict(spec)
    name = str(options.pop("name", ""))
    place = {key: str(options.pop(key, "") or "") for key in ("path", "subset", "split")}
    fields = {k: v for k, v in dict(options.pop("fields", None) or {}).items() if v}
    on_error = options.pop("on_error", "raise")
    reading = options.pop("answer", BOXED)
    if reading not in MODES:
        raise ValueError(f"Data set {name!r}: answer={reading!r} is none of {', '.join(MODES)}.")
    rules = _filter(options.pop("filter", None))
    if on_error not in ON_ERROR:
        raise ValueError(f"Data set {name!r}: on_error={on_error!r} is neither 'raise' nor 'skip'.")
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(
            f"Data set {name!r}: unknown option {unknown[0]!r}; there are name, path, subset, "
            "split, size, fields, answer, on_error, filter and, for generated tasks, "
            f"{', '.join(_OPTIONS)}."
        )
    if name.partition("/")[0] in GENERATED:
        if reading != BOXED:
            raise ValueError(
                f"Data set {name!r} is generated and boxes its answers; remove `answer`."
            )
        return _generated(name, options, fields, place, rules)
    size = options.pop("size", 0)
    if size < 0:
        raise ValueError(f"size={size} must be 0 (all) or more.")
    _refuse_idle(name, options, {"seed"})
    known = CATALOGUE.get(name)
    if known is not None:
        fields = {**known.fields, **fields}
        if not rules.where:
            rules = dataclasses.replace(rules, where=known.where)
    records, where, mapped = _open(name, known, fields, **place)
    mapped = dataclasses.replace(mapped, needs_answer=needs_answer, reading=reading)
    report = Report()
    read = _examples(records, where, mapped, rules)
    kept = _kept(_good(read, where, mapped.file, on_error, report), rules, report)
    return _collect(kept, where, size, on_error, report)


def _refuse_idle(name: str, options: Mapping[str, Any], read: set[str]) -> None:
    """Raises where an option that this data set does not read has been set."""
    for option, value in options.items():
        if option not in read and value not in _OPTIONS[option]:
            raise ValueError(
                f"Data set {name!r}: {option}={value!r} is an option of other tasks, which are "
                "generated; remove it."
            )


def _generated(
    name: str,
    options: dict[str, Any],
    fields: dict[str, str],
    place: dict[str, str],
    rules: Filter,
) -> Source:
    if name not in GENERATED_NAMES:
        raise ValueError(f"Data set {name!r} is not one of {', '.join(GENERATED_NAMES)}.")
    idle = {"fields": fields, "filter.where": rules.where, **place}
    for option, value in idle.items():
        if value:
            raise ValueError(
                f"Data set {name!r} is generated and has no fields to map and nothing to fetch; "
                f"remove `{option}`."
            )
    task, _, split = name.partition("/")
    known = {f.name for f in dataclasses.fields(GENERATED[task])}
    _refuse_idle(name, options, known)
    source = GENERATED[task](split, **{k: v for k, v in options.items() if k in known})
    if rules == Filter():
        return source
    report = Report(read=len(source))
    return _collect(_kept(source, rules, report), name, 0, "raise", report)


def _filter(section: Any) -> Filter:
    given = dict(section or {})
    if isinstance(given.get("against"), list):
        given["against"] = tuple(given["against"])  # a list in JSON
    return read_section(Filter, given, "filter")


def _open(
    name: str, known: Known | None, fields: dict[str, str], path: str, subset: str, split: str
) -> tuple[Records, str, FieldMap]:
    """The records, the data set's name for people, and the map of its fields."""
    if path and known is None:
        raise ValueError(
            f"path={path!r} is a local copy of one of {', '.join(CATALOGUE)}; for a file of your "
            "own set `name` to it."
        )
    if known is not None and not path:
        if split:
            raise ValueError(f"Data set {name!r} has its split in its name; remove `split`.")
        map_ = FieldMap(fields, name, name)
        return hub_records(known.hub, subset or known.subset, known.split), name, map_
    if name.startswith(HUB):
        where = name.removeprefix(HUB)
        return hub_records(where, subset, split), where, FieldMap(fields, where, where)
    if name in SAMPLE_NAMES:
        file = SAMPLES / f"{name.removeprefix('sample/')}.jsonl"
    else:
        file = local_path(path or name, "data.*.path" if path else "data.*.name")
    if file.is_dir():
        called = name if known else file.name
        return hub_records(str(file), subset, split), str(file), FieldMap(fields, called, called)
    if subset or split:
        raise ValueError(f"{file} is a file: it has no subset and no split; remove them.")
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"Data set {name!r} is neither "
            f"{', '.join((*GENERATED_NAMES, *SAMPLE_NAMES, *CATALOGUE))}, nor hub:OWNER/NAME, nor "
            f"a folder, nor the path of a {', '.join(SUFFIXES)} file."
        )
    return file_records(file), str(file), FieldMap(fields, file.name, name if known else file.stem)


def _examples(
    records: Records, where: str, map_: FieldMap, rules: Filter
) -> Iterator[tuple[str, Callable[[], Example]]]:
    """Of every record that `rules.where` selects, its place and what makes an example of it."""
    ids: set[str] = set()

    def make(place: str, record: Any) -> Example:
        example = map_(record, place, f"{where}, {place}")
        if example.id in ids:
            raise BadRecord(
                f"{where}, {place}: the id {example.id!r} is there twice. Map fields.id to a field "
                "that tells records apart, or to none."
            )
        ids.add(example.id)
        return example

    for place, record in records:
        if isinstance(record, BadRecord) or rules.selects(record):
            yield place, functools.partial(make, place, record)


def _good(
    placed: Iterable[tuple[str, Callable[[], Example]]],
    where: str,
    file: str,
    on_error: str,
    report: Report,
) -> Iterator[Example]:
    """The examples that can be made; the others are raised or noted."""
    first, bad = "", 0
    try:
        for place, make in placed:
            report.read += 1
            try:
                example = make()
            except BadRecord as error:
                if on_error == "raise":
                    raise
                first, bad = first or str(error), bad + 1
                report.drop(UNUSABLE, f"{file}:{place.split()[-1]}", str(error))
                continue
            yield example
    finally:  # also where whoever asks has enough
        if bad:
            log.warning("%s: skipped %d records, of which the first: %s", where, bad, first)


def _kept(examples: Iterable[Example], rules: Filter, report: Report) -> Iterator[Example]:
    def evaluation() -> Iterator[Example]:
        for name in rules.against:
            for example in load_source({"name": name}):
                yield dataclasses.replace(example, source=name)

    return keep(examples, rules, evaluation, report)


def _collect(
    examples: Iterator[Example], where: str, size: int, on_error: str, report: Report
) -> FileSource:
    found = tuple(itertools.islice(examples, size) if size else examples)
    report.kept = len(found)
    dropped = len(report.dropped.get(UNUSABLE, ()))
    filtered = {reason: d for reason, d in report.dropped.items() if reason != UNUSABLE}
    if not found:
        more = f", and left out {report.left_out}" if filtered else ""
        raise ValueError(f"{where} holds no usable records ({dropped} were skipped{more}).")
    if filtered:
        log.warning("%s: %s.", where, report.summary)
    return FileSource(found, dropped, on_error, report)


def keep_good(source: FileSource, name: str, use: Callable[[Example], Any]) -> FileSource:
    """The examples of a file that `use` finds nothing wrong with.

    Args:
      name: of the data set, for messages.
      use: raises `ValueError` where an example is no good; `source.on_error` says whether that is
        raised, or the example skipped, and how many there were logged.

    Raises:
      ValueError: as `use` does; or no example is left.
    """
    examples: list[Example] = []
    first, bad = "", 0
    for example in source:
        try:
            use(example)
            examples.append(example)
        except ValueError as error:
            if source.on_error == "raise":
                raise
            first, bad = first or str(error), bad + 1
            source.report.drop(UNUSABLE, example.id, str(error))
    if bad:
        log.warning("%s: skipped %d records, of which the first: %s", name, bad, first)
    if not examples:
        raise ValueError(f"{name} holds no usable records ({source.dropped + bad} were skipped).")
    return dataclasses.replace(source, examples=tuple(examples), dropped=source.dropped + bad)
