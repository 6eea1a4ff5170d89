"""Records of files, folders and the Hugging Face hub, one at a time and with their places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.data.fields import BadRecord

HUB = "hub:"
SUFFIXES = (".jsonl", ".json", ".parquet")
# Rows of a Parquet file in memory at a time.
_ROWS = 1024

Records = Iterator[tuple[str, Any]]


def file_records(path: Path) -> Records:
    """Pairs of a place, such as `line 3`, and the record there, or what was wrong with it.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not what its name says.
      ImportError: a Parquet file, and no pyarrow.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Data set {path}: there is no such file.")
    reader = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}[path.suffix]
    return reader(path)


def hub_records(where: str, subset: str, split: str) -> Records:
    """The same of a data set on the hub, or of a folder in the hub's layout.

    The `datasets` library downloads it into its cache, and runs no code of the data set.

    Args:
      where: `owner/name`, or a folder with .parquet, .jsonl or .json files.

    Raises:
      ImportError: the `datasets` library is missing.
      OSError: it cannot be reached, or read.
      ValueError: there is no such data set, subset or split.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"Data set {where!r}: reading from the hub or a folder needs `pip install "
            "'motab[data]'`. A .jsonl or .json file needs nothing."
        ) from None
    try:
        rows = datasets.load_dataset(where, subset or None, split=split or "train")
    except (
        datasets.exceptions.DatasetNotFoundError,
        datasets.exceptions.DataFilesNotFoundError,
    ) as error:
        raise ValueError(f"Data set {where!r}: {error}") from None
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"Data set {where!r}, {subset=}, {split=}: {error}") from None
    for number, record in enumerate(rows, 1):
        yield f"record {number}", record


def _json(path: Path) -> Records:
    try:
        records = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(records, list):
        raise ValueError(f"{path} must hold a list of records; use .jsonl for one per line.")
    for number, record in enumerate(records, 1):
        yield f"record {number}", record


def _jsonl(path: Path) -> Records:
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
                        f"{path}, line {number}: not valid JSON ({error}). Repair or remove the "
                        "line, or set on_error='skip'."
                    ),
                )


def _parquet(path: Path) -> Records:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            f"{path}: reading Parquet needs `pip install 'motab[data]'`, or save it as .jsonl."
        ) from None
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS):
            for record in batch.to_pylist():
                number += 1
                yield f"record {number}", record
    # Arrow raises OSError for pages that cannot be decompressed, and ValueError for texts.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not valid Parquet: {error}") from None
