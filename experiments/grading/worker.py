"""The process behind `experiments.grading`: a JSON request per line in, a JSON reply per line out.

It is run as a script. Its first line says that it has graded two known answers right. A request
that takes too much time or memory ends it, in whatever computation it is: a number like 10^(10^10)
cannot be interrupted from inside Python.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_BYTES = 4 * 1024**3
# How much longer than its processor time a request may take by the clock, on a busy machine.
CLOCK_FACTOR = 4

# The test at the start: what a parser that reads nothing, or takes all for one, gets wrong.
KNOWN = (
    (r"\frac{1}{2}", "0.5", True),
    ("(x+1)^2", "x^2+2x+1", True),
    (r"\sqrt{12}", r"2\sqrt{3}", True),
    ("x+1", "x+2", False),
    ("x > 2", r"(2, \infty)", True),
)


def limit_memory() -> None:
    """Bounds this process where the platform can: macOS refuses, Windows has no `resource`."""
    try:
        import resource
    except ImportError:
        return
    for name, most in (("RLIMIT_AS", MEMORY_BYTES), ("RLIMIT_CORE", 0)):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


class Watchdog:
    """Ends the process when a request overruns, without the help of Python code.

    By processor time where the platform has a timer for it, so that a busy machine changes no
    verdict, and by the clock everywhere.
    """

    def __init__(self) -> None:
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        self._timer: Callable[[float], Any] = lambda seconds: None
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            self._timer = lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)

    def start(self, seconds: float) -> None:
        self._timer(seconds)
        faulthandler.dump_traceback_later(CLOCK_FACTOR * seconds, exit=True, file=self._nowhere)

    def stop(self) -> None:
        self._timer(0)
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    # A cluster may send these to every process of a job. This one ends when its input does.
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Libraries may print: the replies keep the real standard output to themselves.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    limit_memory()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from experiments.grading.compare import equal

    for given, true, expected in KNOWN:
        if equal(given, true) is not expected:
            raise RuntimeError(f"{given} is {'not ' * expected}found equal to {true}.")
    watchdog = Watchdog()

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    reply(ready=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        watchdog.start(request["seconds"])
        try:
            verdict: bool | None = equal(request["prediction"], request["answer"])
        except MemoryError:
            verdict = None
        except Exception:  # what cannot be read is not the answer
            verdict = False
        watchdog.stop()
        reply(id=request["id"], equal=verdict)


if __name__ == "__main__":
    main()
