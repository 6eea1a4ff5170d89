"""Whether a model got better: two evaluations compared problem by problem.

    python -m experiments.paired --before DIR --after DIR

The difference has a 95 % bootstrap interval over problems, which is narrower than those of the two
accuracies, since the same problems are hard for both.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag

_SAMPLES = "directory of experiments.evaluate, or a .jsonl file of samples"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compare."""

    before: Annotated[Path, Flag(_SAMPLES)]
    after: Annotated[Path, Flag(_SAMPLES)]
    out: Annotated[Path | None, Flag("for the numbers", "FILE.json")] = None


def run(settings: Settings) -> None:
    """Compares, and shows the table."""
    from rich.console import Console

    from experiments.evaluate.paired_comparison import compare, read_samples, table
    from experiments.workdir.workdir import plain, write_atomic

    result = compare(read_samples(settings.before), read_samples(settings.after))
    Console().print(table(result))
    if settings.out:
        write_atomic(settings.out, (json.dumps(plain(result), indent=2) + "\n").encode())


main = command("paired", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
