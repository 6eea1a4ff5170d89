"""One writer at a time in a directory, be it that its `lock` is deleted or replaced.

Two things are locked. The directory itself, which cannot be deleted while it is in use without the
run's files going too; and a file `lock` in it, which says who writes, and which serves alone on
file systems that lock no directories (NFS). `filelock` locks a file of its own: once that is
deleted it lets a second writer in.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from experiments.workdir.files import open_log

LOCK = "lock"


class Lock:
    """Held from the start until `release`, or until the process dies, however it does.

    Args:
      directory: is there.

    Raises:
      RuntimeError: another process, or another `Lock` of this one, writes there.
      OSError: the file system refused; or `lock` is a link or something else than a file.
    """

    def __init__(self, directory: Path):
        self._path = directory / LOCK
        self._handles: list[int] = []
        try:
            self._whole = self._take_directory(directory)
            self._file = open_log(self._path)
            self._handles.append(self._file)
            if not _locked(self._file):
                raise self._taken()
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode("ascii"))
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Raises where another writer may have come in; to be called before something is written.

        Raises:
          RuntimeError: the directory cannot be locked here, and `lock` was deleted or replaced.
        """
        if not self._whole and not _same(self._path, self._file):
            raise RuntimeError(
                f"{self._path} was deleted or replaced while this run was writing, so another may "
                "be writing too. Start it again once no other does."
            )

    def release(self) -> None:
        """Lets the next writer in."""
        while self._handles:
            os.close(self._handles.pop())

    def _take_directory(self, directory: Path) -> bool:
        """Whether the directory itself could be locked."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._handles.append(handle)
        try:
            if not _locked(handle):
                raise self._taken()
        except OSError:  # NFS locks files that are open for writing alone
            return False
        if not _same(directory, handle):
            raise FileNotFoundError(errno.ENOENT, f"{directory} was just removed. Start again")
        return True

    def _taken(self) -> RuntimeError:
        owner = "unknown"
        with contextlib.suppress(OSError):
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or owner
            os.close(handle)
        return RuntimeError(
            f"{self._path.parent} is being written by another run (process {owner}). "
            "Wait for it to end, or use another --workdir."
        )


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(path: Path, handle: int) -> bool:
    """Whether the path still leads to what the handle is of."""
    try:
        there, here = os.stat(path), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
