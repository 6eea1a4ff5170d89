"""Processes that compare answers: they start once, stay, and are ended when one takes too long.

Not `multiprocessing`, nor a pool built on it such as pebble: its fresh processes import the
caller's main module again, so a script without a guard would run twice, and what a worker says on
its standard error when it cannot start is lost. Forking instead is unsafe beside JAX's threads.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from experiments.grading.worker import CLOCK_FACTOR

# How long a worker may take to import what it needs and to pass its test.
START_SECONDS = 180.0
_ERROR_CHARACTERS = 2_000
_IDS = itertools.count()


class GradingError(RuntimeError):
    """Answers cannot be compared on this machine; the message says why."""


class Outcome(enum.Enum):
    """Of a comparison. `UNDECIDED`: it ran out of time or memory."""

    EQUAL = "equal"
    UNEQUAL = "unequal"
    UNDECIDED = "undecided"


class Worker:
    """One grading process. It starts in the background; `await_start` waits for it."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the worker
        self._replies = Replies()
        self._process = _launch(self._errors)
        threading.Thread(
            target=_read, args=(self._process.stdout, self._replies), daemon=True
        ).start()

    def await_start(self) -> None:
        """Waits until the process has passed its test. An interrupt here does no harm.

        Raises:
          GradingError: it does not start or fails the test; with what it wrote to its standard
            error.
        """
        if not self._replies.begun.wait(START_SECONDS) or not self._replies.ready:
            self.stop()
            raise GradingError(self._why())

    def ask(self, prediction: str, answer: str, seconds: float) -> Outcome | None:
        """The outcome; None where the process has died without using its time up.

        After anything but `EQUAL` and `UNEQUAL`, and after an exception, the worker must be
        stopped.
        """
        assert self._process.stdin is not None
        number = next(_IDS)
        request = {"id": number, "prediction": prediction, "answer": answer, "seconds": seconds}
        started = time.monotonic()
        patience = CLOCK_FACTOR * seconds + 1
        try:
            unsent = memoryview(json.dumps(request).encode() + b"\n")
            while unsent:  # a signal may cut a write short
                unsent = unsent[self._process.stdin.write(unsent) :]
            line = self._replies.lines.get(timeout=patience)
        except (BrokenPipeError, OSError, ValueError):
            return None
        except queue.Empty:
            return Outcome.UNDECIDED
        if line is None:
            # The processor's clock and ours differ a little.
            return Outcome.UNDECIDED if time.monotonic() - started > 0.8 * seconds else None
        try:
            reply = json.loads(line)
            if reply["id"] != number:
                return None
            return _OUTCOMES[reply["equal"]]
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        with contextlib.suppress(OSError):
            self.hang_up()
        self._process.wait()

    def hang_up(self) -> None:
        """Closes this side of the pipe: the process ends when no other holds it."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _why(self) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        state = "ended at once" if self._replies.begun.is_set() else "did not answer"
        return (
            f"The grading process {state} (exit status {self._process.returncode}), so no answer "
            "can be compared. Check that sympy, latex2sympy2_extended and the antlr4 runtime work "
            f"in this environment. It said:\n{said[-_ERROR_CHARACTERS:] or '(nothing)'}"
        )


class Replies:
    """What a process says.

    Attributes:
      begun: set when it has said its first line, or has ended.
      ready: whether that line says that it may be asked.
      lines: what it says then; None at the end.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ready = False
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def add(self, line: bytes | None) -> None:
        if self.begun.is_set():
            self.lines.put(line)
            return
        self.ready = line is not None and _is_ready(line)
        self.begun.set()


_OUTCOMES = {True: Outcome.EQUAL, False: Outcome.UNEQUAL, None: Outcome.UNDECIDED}


def _launch(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise GradingError("Grading needs a Python interpreter, and sys.executable names none.")
    options: dict[str, Any] = {}
    if os.name == "posix":
        options["process_group"] = 0  # Ctrl-C is for the run, which still needs its verdicts
    elif os.name == "nt":
        options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    script = Path(__file__).with_name("worker.py")
    try:
        # -P: the folder of this package, whose names may shadow others, stays off the path.
        return subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            **options,
        )
    except OSError as error:
        raise GradingError(f"The grading process cannot be started: {error}.") from error


def _read(said: IO[bytes], replies: Replies) -> None:
    """Hands on lines, and None at the end. It keeps no reference to the worker."""
    with contextlib.suppress(OSError, ValueError), said:
        rest = b""
        while chunk := said.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                replies.add(line)
    replies.add(None)
    replies.lines.put(None)


def _is_ready(line: bytes) -> bool:
    try:
        return json.loads(line) == {"ready": True}
    except ValueError:
        return False


class Slot:
    """A place for one worker.

    The worker is taken out while it works and put back when its reply has come. So whatever
    interrupts a request, at whatever moment, leaves no worker behind whose next reply is an old
    one. One that is still starting stays.
    """

    def __init__(self) -> None:
        # Reentrant: a signal's handler may grade while the thread that it interrupted does.
        self.lock = threading.RLock()
        self.worker: Worker | None = None

    def ask(self, prediction: str, answer: str, seconds: float) -> Outcome:
        with self.lock:
            for _ in range(2):  # a worker that something else has killed is replaced
                worker = self._take()
                try:
                    outcome = worker.ask(prediction, answer, seconds)
                except BaseException:
                    worker.stop()
                    raise
                if outcome in (Outcome.EQUAL, Outcome.UNEQUAL) and self.worker is None:
                    self.worker = worker
                else:
                    worker.stop()
                if outcome is not None:
                    return outcome
            return Outcome.UNDECIDED

    def start(self) -> None:
        with self.lock:
            self.worker = self._take()

    def _take(self) -> Worker:
        """A worker that may be asked, and is no longer in its place."""
        if self.worker is None or not self.worker.alive:
            self.worker = Worker()
        worker = self.worker
        try:
            worker.await_start()
        except GradingError:
            self.worker = None
            raise
        self.worker = None
        return worker


class Pool:
    """A few slots; a thread keeps to one, so that a slow answer holds up few others."""

    def __init__(self, size: int) -> None:
        self._slots = [Slot() for _ in range(size)]
        self._places = itertools.count()
        self._thread = threading.local()

    def ask(self, prediction: str, answer: str, seconds: float) -> Outcome:
        """Whether two answers are equal, within `seconds` of processor time.

        Raises:
          GradingError: no worker can be started.
        """
        return self._slot().ask(prediction, answer, seconds)

    def start(self) -> None:
        """Starts a worker and tests it.

        Raises:
          GradingError: it cannot be started.
        """
        self._slot().start()

    def _slot(self) -> Slot:
        if not hasattr(self._thread, "place"):
            self._thread.place = next(self._places) % len(self._slots)
        return self._slots[self._thread.place]

    def close(self) -> None:
        """Ends all workers."""
        for slot in self._slots:
            worker, slot.worker = slot.worker, None
            if worker is not None:
                worker.stop()

    def forget(self) -> None:
        """In a forked process: the workers are the parent's, and locks may be held for ever."""
        old = self._slots
        self._slots = [Slot() for _ in old]
        self._thread = threading.local()
        for slot in old:
            if slot.worker is not None:
                with contextlib.suppress(OSError):
                    slot.worker.hang_up()


POOL = Pool(min(4, os.cpu_count() or 1))
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)
