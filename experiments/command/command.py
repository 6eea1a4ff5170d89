"""How every command ends: errors in a line on stderr, and exit codes that say what happened."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from absl import logging

from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import read_flags
from experiments.machine.exit_codes import FAILED, RESUMABLE, STOPPED, UNREAD, Interrupted

SettingsT = TypeVar("SettingsT")
# What input, files or the machine may be to blame for. Everything else is a fault of ours, and its
# trace is needed.
EXPECTED = (ImportError, OSError, RuntimeError, ValueError)


class Main(Protocol):
    """A command as a function of its arguments, by default those of this process."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def command(
    name: str,
    settings: type[SettingsT],
    run: Callable[[SettingsT], int | None],
    about: str | None,
) -> Main:
    """The `main` of a command.

    Args:
      name: its module below `experiments`.
      settings: the dataclass of its flags; see `experiments.command.flags`.
      run: does the work. It may return an exit code.
      about: what it does, for `--help`.

    Returns:
      a function of the arguments that returns an exit code: 0 when done, 1 after an error, 2 for a
      wrong command line, 75 when interrupted and resumable, 130 after Ctrl-C where nothing is
      resumed, 141 where nobody reads its output any more.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        code = outcome(arguments)
        return UNREAD if _has_no_reader() else code

    def outcome(arguments: Sequence[str] | None) -> int:
        try:
            given = read_flags(settings, f"python -m experiments.{name}", about or "", arguments)
        except SystemExit as end:
            return int(end.code or 0)
        logging.set_verbosity(logging.WARNING)
        with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr may be no file
            if not faulthandler.is_enabled():
                faulthandler.enable()
        try:
            if isinstance(given, ConfigFlags) and given.print_config:
                given.show()
                return 0
            return run(given) or 0
        except EXPECTED as error:
            if isinstance(error, BrokenPipeError) and _has_no_reader():
                return UNREAD
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return FAILED
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            return RESUMABLE
        except KeyboardInterrupt:
            return STOPPED

    return main


def _has_no_reader() -> bool:
    """Whether the output goes into a pipe that is closed at its other end, as after `| head`.

    What is still to be written then goes nowhere, so that Python does not complain at its exit.
    """
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # none, or no file
        return False
    try:
        sys.stdout.flush()
        gone = _is_broken(output)
    except BrokenPipeError:
        gone = True
    if gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)
    return gone


def _is_broken(pipe: int) -> bool:
    """Whether the readers of a pipe have gone, which poll can tell without writing to it."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(pipe, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
