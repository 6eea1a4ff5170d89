"""Measuring processes, started, asked for repetitions in turns, and read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCRIPTS = {
    name: Path(__file__).resolve().parent / "peers" / f"{script}.py"
    for name, script in (("hf", "hf"), ("torch", "torch_"), ("trl", "trl_"), ("tunix", "tunix_"))
}
ROOT = Path(__file__).resolve().parents[2]
# What takes longer, in seconds, is measured once.
MINUTE = 60.0


@dataclasses.dataclass
class Result:
    """One measurement of one library.

    Attributes:
      what, who, variant: which one.
      state: `done`, `absent` (its package is not installed) or `failed`.
      message: why it is not done.
      seconds: of the repetitions, in rounds: entry i was taken in turns with every other's entry i.
      first_seconds: the first run, compilation included.
      peak_mib: peak resident memory of the process, all of it.
      facts: other numbers.
      versions: of the packages measured.
    """

    what: str
    who: str
    variant: str = ""
    state: str = "done"
    message: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    first_seconds: float | None = None
    peak_mib: float | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Who and variant."""
        return f"{self.who} ({self.variant})" if self.variant else self.who


class Worker:
    """A measuring process, started when it is its turn to warm up. `result` grows as it answers."""

    def __init__(
        self,
        command: Sequence[str],
        request: Mapping[str, Any],
        result: Result,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ):
        self.result, self.log = result, log
        self._command, self._request = command, request
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen | None = None
        self._most: int | None = None

    def start(self) -> None:
        """Starts the process and returns when it is warm, or will never be."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        request = self.log.with_suffix(".json")
        request.write_text(json.dumps(self._request), encoding="utf-8")
        with self.log.open("w") as errors:
            try:
                self._process = subprocess.Popen(
                    [*self._command, str(request)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=self._environment,
                    text=True,
                )
            except OSError as error:
                self._end("absent", f"{self._command[0]} cannot be started: {error.strerror}")
                return
        if answer := self._read("ready"):
            self.result.first_seconds = answer["first_seconds"]
            self.result.versions = answer["versions"]
            self._most = answer.get("repetitions")

    @property
    def willing(self) -> bool:
        """Whether another repetition can be asked for, and is worth its time."""
        taken = self.result.seconds
        enough = self._most is not None and len(taken) >= self._most
        return self._process is not None and not enough and max(taken, default=0) <= MINUTE

    def repeat(self) -> None:
        """Takes one repetition."""
        if self._write("go") and (answer := self._read("time")):
            self.result.seconds.append(answer["seconds"])

    def stop(self) -> None:
        """Ends the process and reads its last words."""
        if self._write("stop") and (answer := self._read("done")):
            self.result.peak_mib = answer["peak_mib"]
            self.result.facts |= answer["facts"]
            self._end("done", "")

    def _write(self, line: str) -> bool:
        if self._process is None:
            return False
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return True

    def _read(self, expected: str) -> dict[str, Any] | None:
        """The answer, if it is the `expected` one; anything else ends the measurement."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
            event = answer["event"]
        except (ValueError, KeyError, TypeError):
            code = self._process.wait() if not line else None
            said = f"it ended with code {code}" if not line else f"it said {line.strip()[:200]!r}"
            self._end("failed", f"no answer ({expected}): {said}; see {self.log}")
            return None
        if event == expected:
            return answer
        if event in ("absent", "error"):
            self._end("absent" if event == "absent" else "failed", answer["message"])
        else:
            self._end("failed", f"the answer is {event!r} where {expected!r} was expected")
        return None

    def _end(self, state: str, message: str) -> None:
        self.result.state, self.result.message = state, message
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def own_command() -> list[str]:
    """How our own measurements are started."""
    return [sys.executable, "-m", "experiments.bench.worker"]


def peer_command(who: str, pythons: Mapping[str, str]) -> list[str]:
    """How a peer's are: with the interpreter given for it, or ours."""
    return [pythons.get(who, sys.executable), str(SCRIPTS[who])]


def take_turns(workers: Sequence[Worker], repetitions: int) -> None:
    """Warms all up, one after the other, then takes repetitions in rounds, in alternating order."""
    for worker in workers:
        worker.start()
    for round_ in range(repetitions):
        for worker in workers if round_ % 2 == 0 else list(reversed(workers)):
            if worker.willing:
                worker.repeat()
    for worker in workers:
        worker.stop()
