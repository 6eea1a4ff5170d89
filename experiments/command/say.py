"""A line on a console, as it is."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def say(console: Console, line: str) -> None:
    """Prints a line whose brackets and colons mean nothing: names and paths may have both.

    It stays one line in a log file, whatever width is taken for its terminal.
    """
    console.print(Text(line), soft_wrap=True)
