"""What MOTAB's monitor sees: a student's solutions, scored step by step by a teacher.

    python -m experiments.diagnose.monitored.score --student embedded:student \\
        --teacher embedded:teacher --data chain/test --size 64 --out DIR

Nothing is corrected and nothing is trained. `DIR/rollouts.jsonl` gets a line per solution as it
ends; an interrupted call goes on when called again. What a line holds is said in
`experiments/diagnose/monitored/scored_rollouts.py`.
"""

from __future__ import annotations

import sys

from experiments.command.command import command
from experiments.diagnose.monitored.settings import ScoreSettings


def run(settings: ScoreSettings) -> None:
    """Writes and scores what is missing."""
    from rich.console import Console

    from experiments.diagnose.monitored.scored_rollouts import score_rollouts
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible

    keep_compiled()
    with interruptible():
        score_rollouts(settings, Console())


main = command("diagnose.monitored.score", ScoreSettings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
