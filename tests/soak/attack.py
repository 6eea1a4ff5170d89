"""Hostile input by the classes of docs/reliability.md: `python -m tests.soak --attack [--seed 0]`.

Every try has a directory of its own, goes through a function or command that users call, and
survives if it ends as an undisturbed one does, if it goes on and names the file that is not what it
was, or if it is refused with the file, field or argument named. Anything else, as a trace or a
result that differs without a word, does not.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import logging
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from experiments.command.command import EXPECTED

# A try that takes longer does not survive.
SECONDS = 300
SAME, SAID, REFUSED = "same", "said", "refused"


class Wrong(AssertionError):
    """A try did not survive."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """One try.

    Attributes:
      kind: its row in the table.
      name: what is done.
      do: does it in a fresh directory and returns SAME, or SAID where it went on with a warning. It
        may raise what a user's input may be to blame for.
      names: of which a refusal or a warning has to say one.
    """

    kind: str
    name: str
    do: Callable[[Path], str]
    names: tuple[str, ...]


class _Heard(logging.Handler):
    """What is logged, as text."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def attempt(attack: Attack, directory: Path) -> str:
    """SAME, SAID or REFUSED.

    Raises:
      Wrong: it is none of them.
    """
    shutil.rmtree(directory, ignore_errors=True)  # of a command that was killed
    directory.mkdir(parents=True)
    heard, shown = _Heard(), io.StringIO()
    logging.getLogger().addHandler(heard)
    try:
        with _limit(SECONDS), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            outcome = attack.do(directory)
    except Wrong:
        raise
    except EXPECTED as error:
        outcome, heard.text = REFUSED, f"{type(error).__name__}: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.format_exception(error)[-3:]
        raise Wrong(f"{attack.kind}, {attack.name}: {''.join(last)}") from error
    finally:
        logging.getLogger().removeHandler(heard)
        shutil.rmtree(directory, ignore_errors=True)
    said = heard.text + shown.getvalue()
    if outcome != SAME and not any(name in said for name in attack.names):
        raise Wrong(
            f"{attack.kind}, {attack.name}: {outcome}, but nobody named {attack.names}: {said}"
        )
    return outcome


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Wrong(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_attacks(directory: Path, seed: int, only: str = "") -> list[str]:
    """Tries all of them, prints the table, and returns what did not survive.

    Args:
      directory: for the tries; what they leave is removed.
      seed: of what is changed where.
      only: a class whose name begins so; all by default.
    """
    from . import attack_directories, attack_files, attack_inputs

    # A run is started again and again.
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    chance = random.Random(seed)
    counts: dict[str, collections.Counter] = {}
    wrong, began = [], time.monotonic()
    makers = [*attack_inputs.MAKERS, *attack_files.MAKERS, *attack_directories.MAKERS]
    for kind, maker in makers:
        if not kind.startswith(only):
            continue
        count = counts.setdefault(kind, collections.Counter())
        for number, attack in enumerate(maker(directory, chance, kind)):
            count["tries"] += 1
            try:
                count[attempt(attack, directory / f"{kind}-{number}".replace(" ", "-"))] += 1
            except Wrong as error:
                wrong.append(str(error))
                print(f"DID NOT SURVIVE {attack.kind}, {attack.name}: {error}", file=sys.stderr)
        print(f"{time.monotonic() - began:6.0f} s  {kind}: {dict(count)}", flush=True)
    print(table(counts))
    return wrong


def table(counts: dict[str, collections.Counter]) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| class | tries | same end | went on, and said what is missing | refused, by name | survived |",
        "|---|---|---|---|---|---|",
    ]
    for kind, count in counts.items():
        survived = count[SAME] + count[SAID] + count[REFUSED]
        cells = (count["tries"], count[SAME], count[SAID], count[REFUSED], survived)
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
