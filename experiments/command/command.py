"""How every command ends: errors in a line on stderr, and exit codes that say what happened."""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from absl import logging

from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import read_flags
from experiments.machine.exit_codes import FAILED, RESUMABLE, STOPPED, Interrupted

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
      resumed.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
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
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return FAILED
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            return RESUMABLE
        except KeyboardInterrupt:
            return STOPPED

    return main
