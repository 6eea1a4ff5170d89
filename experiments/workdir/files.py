"""Files written whole or not at all, and JSON files read with errors that name them.

What is read or replaced is a regular file: of a FIFO or a device a message says so, and no link
that lies where a file is written is followed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

# No JSON file of ours comes near; logs are read line by line and have no bound.
MOST_BYTES = 2**28


def read_json(path: str | os.PathLike[str], advice: str = "") -> Any:
    """The content of a JSON file.

    Args:
      advice: a sentence that is added to errors about the content.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not JSON, not a regular file, or larger than any file of ours.
    """
    content = read_regular(path, MOST_BYTES)
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_not_strict)
    except (ValueError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{path} is not JSON: {text}. {advice}".rstrip()) from error


def read_object(path: str | os.PathLike[str], advice: str = "") -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as `read_json`; or it holds a list, null, or another value.
    """
    return as_object(read_json(path, advice), str(path), advice)


def as_object(value: Any, name: str, advice: str = "") -> dict[str, Any]:
    """`value`, once it is sure to be a JSON object.

    Raises:
      ValueError: names it.
    """
    if isinstance(value, dict):
        return value
    kinds = {list: "a list", type(None): "null", str: "a string", bool: "true or false"}
    kind = kinds.get(type(value), "a number")
    raise ValueError(f"{name} must be an object, and is {kind}. {advice}".rstrip())


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a regular file, reached through a link or not.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is something else, as a FIFO or a device; or longer than `most` bytes.
    """
    # Without O_NONBLOCK a FIFO would wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        raise ValueError(f"{path} is not a regular file.")
    with open(handle, "rb") as file:
        if most is not None and about.st_size > most:
            raise ValueError(f"{path} has {about.st_size} bytes, more than the {most} allowed.")
        return file.read()


def open_log(path: Path) -> int:
    """A handle that reads and appends, of a file that is made if it is not there.

    Raises:
      OSError: it is a link, or not a regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, f"{path} is a link. Remove it") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path} is not a regular file. Remove it")
    return handle


def write_atomic(path: Path, content: bytes) -> None:
    """Puts `content` in place of `path`; whoever reads finds the old file or the new one.

    Raises:
      OSError: it could not be written, and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # a link is removed, not followed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}); it is as it was before",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Returns when the names in a directory are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as strict JSON, see `plain`: wholly, or not at all."""
    write_atomic(path, (json.dumps(plain(value), indent=2) + "\n").encode("utf-8"))


def plain(value: Any) -> Any:
    """`value` as strict JSON: arrays as lists, numbers that are not finite as strings.

    Raises:
      TypeError: something in it has no JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form.")


def _not_strict(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
