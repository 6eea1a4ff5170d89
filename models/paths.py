"""Paths of this machine's file systems."""

from __future__ import annotations

import os
import re
from pathlib import Path

# `gs://bucket`, and `gs:/bucket`, which is what `Path` makes of it. A drive has one letter.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(name: str | os.PathLike[str], what: str = "path") -> Path:
    """The path, `~` expanded.

    Args:
      what: the field or flag that names it, for the message.

    Raises:
      ValueError: it begins with a scheme, as `gs://bucket/run` does. Taken as a path it would
        be a local folder named `gs:`.
    """
    text = os.fspath(name)
    if _SCHEME.match(text):
        raise ValueError(
            f"{what}={text}: only local paths are read and written, not "
            f"{text.partition(':')[0]}://. Mount the bucket, or copy from and to it."
        )
    return Path(text).expanduser()
