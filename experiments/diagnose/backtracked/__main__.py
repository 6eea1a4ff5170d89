"""Does backtracking pay? Breached solutions are written anew from several of their steps.

    python -m experiments.diagnose.backtracked --rollouts DIR --gamma_0 0.3 --corrections 2

From the root, the breach, the step before it, a random earlier step and the first step, teacher and
student each continue. `DIR/corrections.jsonl` gets a line per text as it ends; an interrupted call
goes on when called again. `DIR/corrections.json` compares the starts; formats are in
`experiments/diagnose/backtracked/continuations.py` and `outcomes.py` beside it.
"""

from __future__ import annotations

import sys

from experiments.command.command import command
from experiments.diagnose.backtracked.settings import BacktrackedSettings


def run(settings: BacktrackedSettings) -> None:
    """Writes what is missing, and compares."""
    from rich.console import Console

    from experiments.diagnose.backtracked.continuations import write_continuations
    from experiments.diagnose.backtracked.written_outcomes import write_outcomes
    from experiments.diagnose.monitored.reading import read_solutions
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible

    keep_compiled()
    console = Console()
    solutions = read_solutions(settings.rollouts)
    with interruptible():
        lines = write_continuations(settings, solutions, console)
        write_outcomes(settings, solutions, lines, console)


main = command("diagnose.backtracked", BacktrackedSettings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
