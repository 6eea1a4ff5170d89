"""Dual exposure bias of a model pair, by response position:

    python -m experiments.diagnose --student embedded:student --teacher embedded:teacher \\
        --data chain/test --out DIR

With `--window K` also whether a token's loss says that the models part there. What is measured, and
the format of diagnose.json, are in `experiments/diagnose/diagnosis.py`.
"""

from __future__ import annotations

import sys

from experiments.command.command import command
from experiments.diagnose.settings import PairDiagnosis


def run(settings: PairDiagnosis) -> None:
    """Diagnoses the pair, and shows the means."""
    from rich.console import Console

    from experiments.diagnose.pair_diagnosis import diagnose_pair
    from experiments.machine.compilation import keep_compiled

    keep_compiled()
    diagnose_pair(settings, Console())


main = command("diagnose", PairDiagnosis, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
