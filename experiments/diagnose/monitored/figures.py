"""Figures of scored solutions: values, breaches, depths, and adaptive against static boundary.

    python -m experiments.diagnose.monitored.figures --rollouts DIR --show 30

Reads `DIR/rollouts.jsonl` alone, no model. Writes `DIR/monitor.json` (its format is in
`experiments/diagnose/monitored/measures.py`), `DIR/monitor.png` and, with `--show`,
`DIR/breached.md`. Solutions that are still being written do not matter: problems count that have
all of theirs.
"""

from __future__ import annotations

import sys

from experiments.command.command import command
from experiments.diagnose.monitored.settings import FigureSettings


def run(settings: FigureSettings) -> None:
    """Draws, and shows the shares breached."""
    from rich.console import Console

    from experiments.diagnose.monitored.written_figures import write_figures

    write_figures(settings, Console())


main = command("diagnose.monitored.figures", FigureSettings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
