"""What ATESD's controller costs: `python -m experiments.bench_exposure`.

Whole steps (rollout, references, update) of `configs/atesd.py` and of `configs/opsd.py`, in turns,
in one process and on the same batches; medians over rounds of `hold` steps, so that every round has
one decision and one probe. OPSD runs without a probe and has no reward to measure: the difference
is the controller and all that it observes.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

from experiments.command.command import command
from experiments.command.flags import Flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How long is measured."""

    rounds: Annotated[int, Flag("in which every method has its turn")] = 12


def run(settings: Settings) -> None:
    """Prints medians and their ratios."""
    from configs import atesd, opsd
    from experiments.bench.online_steps import print_seconds, time_steps
    from experiments.methods import make_recipe

    configs = {"opsd": opsd.get_config(), "atesd": atesd.get_config()}
    configs["opsd"].exposure.probe_size = 0
    hold = configs["atesd"].controller.hold
    # The warm-up completes decisions until the policy updates.
    seconds = time_steps(configs, make_recipe, warm_up=8 * hold, steps=hold, rounds=settings.rounds)
    print_seconds(seconds, "opsd")


main = command("bench_exposure", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
