"""Reading the small files of a model's directory, which come from elsewhere: bounded, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# No config, index or tokenizer is longer, in bytes: those of the largest models have a few million.
MAX_BYTES = 2**26


def check_regular(file: Path) -> None:
    """Raises unless `file`, or what it links to, is an ordinary file that is not too long.

    A device or a pipe would be read without end.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is something else than a file, or has more than `MAX_BYTES`.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist.")
    if not file.is_file():
        raise ValueError(f"{file} is not a regular file.")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{file} is {file.stat().st_size} bytes long: no such file of a model has more than "
            f"{MAX_BYTES}."
        )


def read_small(file: Path) -> bytes:
    """The bytes of a file, checked as by `check_regular`."""
    check_regular(file)
    with open(file, "rb") as opened:
        found = opened.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:  # it has grown, or says that it is empty, as those below /proc do
        raise ValueError(f"{file} is longer than {MAX_BYTES} bytes: no file of a model is.")
    return found


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not valid JSON, does not hold an object, or is not such a file at all.
    """
    content = read_small(file)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, not {found!r:.200}.")
    return found


def read_object_if_any(file: Path) -> dict[str, Any]:
    """As `read_object`; {} where there is no such file."""
    return read_object(file) if file.exists() else {}
