"""An orderly end when the machine is taken away or the user presses Ctrl-C.

Inside `interruptible()` the first SIGTERM or SIGINT is a request: whoever does the work looks at
`requested()`, or calls `check()`, where nothing would be lost, and raises `Interrupted` with a
message that says how to go on. Commands then end with `RESUMABLE`. The second signal ends the
process at once, as SIGKILL would, also inside of compiled code and XLA's compiler; only code that
holds the interpreter's lock is waited for. What is on disk stays sound.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import jax

from experiments.machine.exit_codes import Interrupted
from experiments.machine.processes import any_process

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_received: list[int] = []
_installed = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first signal into a request, and the second into the end.

    Signals are delivered to the main thread; elsewhere, and inside another `interruptible`, this
    does nothing.
    """
    global _installed
    if _installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    # Python runs a handler only once a call into compiled code returns, and compiling may take a
    # minute: a thread of its own reads signals from a pipe as they come.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True)
    watcher.start()
    handlers = {number: signal.signal(number, _no_action) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _installed = True
    try:
        yield
    finally:
        _installed = False
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the watcher
        watcher.join()
        os.close(reading)
        _received.clear()


def requested() -> bool:
    """Whether this process was asked to end."""
    return bool(_received)


def requested_anywhere() -> bool:
    """Whether any of the processes of a run was asked to end; all call it, at the same step."""
    return any_process(requested())


def check(message: str) -> None:
    """Ends the work here, if this process was asked to and is the only one of its run.

    Raises:
      Interrupted: it was; `message` says what is kept.
    """
    if requested() and jax.process_count() == 1:
        raise Interrupted(f"{reason()}: {message} The same command goes on from there.")


def reason() -> str:
    """What asked this process to end, for messages."""
    names = [signal.Signals(number).name for number in _received]
    return f"Interrupted by {names[0]}" if names else "Interrupted by another process of the run"


def _no_action(*_: object) -> None:
    """Python's part of a handler: the watcher has the signal already."""


def _watch(pipe: int) -> None:
    while data := os.read(pipe, 1):
        number = data[0]
        if number not in SIGNALS:
            continue
        _received.append(number)
        if len(_received) > 1:
            os._exit(128 + number)
        with contextlib.suppress(OSError):
            text = f"\n{reason()}: finishing what is under way. Once more ends it at once.\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
