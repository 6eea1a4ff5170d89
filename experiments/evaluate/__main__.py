"""How well a model solves problems:

    python -m experiments.evaluate --model embedded:student --data chain/test --n 8 --out DIR

With --out, what is graded is kept as it comes: an interrupted evaluation goes on when called again.
"""

from __future__ import annotations

import sys

from experiments.command.command import command
from experiments.evaluate.settings import ModelEvaluation


def run(settings: ModelEvaluation) -> None:
    """Evaluates, and shows the scores."""
    from rich.console import Console

    from experiments.evaluate.model_evaluation import evaluate_model
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.interruption import interruptible

    keep_compiled()
    with interruptible():
        evaluate_model(settings, Console())


main = command("evaluate", ModelEvaluation, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
