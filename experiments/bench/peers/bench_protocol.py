"""How a measuring process talks to the benchmark; nothing but the standard library.

A process is started with the path of a request, a JSON object, and answers with one JSON object per
line on its standard output:

    {"event": "ready", "first_seconds": s, "versions": {...}, "repetitions": null}
                                                   warm, and waiting; able to repeat that often
    {"event": "time", "seconds": s}                after every line "go" on its input
    {"event": "done", "peak_mib": m, "facts": {...}}   after the line "stop"
    {"event": "absent", "message": "..."}           in place of all: a package is missing
    {"event": "error", "message": "..."}            in place of the rest

So that repetitions of several processes can be taken in turns. What libraries print goes to
standard error.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Session:
    """One measurement, as seen from the measuring process.

    Attributes:
      request: what to measure.
      facts: what else there is to say of it; sent in the end.
      packages: distributions whose versions are reported.
    """

    def __init__(self, request: dict[str, Any], out: Any):
        self.request = request
        self.facts: dict[str, Any] = {}
        self.packages: tuple[str, ...] = ()
        self._out = out

    def send(self, event: str, **fields: Any) -> None:
        """Writes one line."""
        self._out.write(json.dumps({"event": event, **fields}) + "\n")
        self._out.flush()

    def ready(self, first_seconds: float, repetitions: int | None = None) -> None:
        """Everything is compiled and has run; the first run took `first_seconds`.

        Args:
          repetitions: how many this process can do at most.
        """
        versions = {name: _version(name) for name in self.packages}
        self.send("ready", first_seconds=first_seconds, versions=versions, repetitions=repetitions)

    def wait(self) -> bool:
        """Whether another repetition is asked for."""
        return sys.stdin.readline().strip() == "go"

    def report(self, seconds: float) -> None:
        """What the repetition took."""
        self.send("time", seconds=seconds)

    def measure(self, repeat: Callable[[], Any]) -> None:
        """Runs `repeat`, which returns when its work is done, twice to warm up, then on demand."""
        first = timed(repeat)
        repeat()
        self.ready(first)
        while self.wait():
            self.report(timed(repeat))

    def tokens(self, batch: int, length: int, stream: int = 0) -> list[list[int]]:
        """Random token ids, the same in every process; none is 0, which some take for padding."""
        draw = random.Random(f"{self.request['seed']} {stream}")
        vocab = self.request["vocab_size"]
        return [[draw.randrange(1, vocab) for _ in range(length)] for _ in range(batch)]


def timed(repeat: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    repeat()
    return time.perf_counter() - started


def peak_mib() -> float:
    """Peak resident memory of this process, in MiB."""
    # On Linux getrusage begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(x.split()[1]) / 2**10 for x in lines if x.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def serve(measurement: Callable[[Session], None]) -> None:
    """Runs a measurement for the request named on the command line."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with open(sys.argv[1], encoding="utf-8") as file:
        session = Session(json.load(file), out)
    try:
        measurement(session)
    except ModuleNotFoundError as error:
        session.send("absent", message=str(error))
    except Exception as error:
        traceback.print_exc()
        session.send("error", message=f"{type(error).__name__}: {error}"[:2000])
    else:
        session.send("done", peak_mib=peak_mib(), facts=session.facts)
    out.flush()
    os._exit(0)  # threads of a library must not keep a finished measurement alive


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
