"""What TOPD's look ahead costs: `python -m experiments.bench_windows`.

Whole steps (rollout, windows, update) of `configs/topd.py`, of the same with `windows.student =
"reuse"`, and of `configs/topd.py:opd`, in turns, in one process and on the same batches; medians
over rounds of five steps. The ratio of gradients, which costs two more gradients when it is
measured, is not. The students train, so that their rollouts may differ in length after the first
update. The paper reports 1.41 x OPD.
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

    rounds: Annotated[int, Flag("in which every method has its turn")] = 8


def run(settings: Settings) -> None:
    """Prints medians and their ratios."""
    from configs import topd
    from experiments.bench.online_steps import print_seconds, time_steps
    from experiments.methods import make_recipe

    arms = {"opd": "opd", "topd": "", "topd, reuse": ""}
    configs = {name: topd.get_config(arg) for name, arg in arms.items()}
    configs["topd, reuse"].windows.student = "reuse"
    for name in ("topd", "topd, reuse"):
        configs[name].guidance.gradient_ratio_every = 0
    seconds = time_steps(configs, make_recipe, warm_up=5, steps=5, rounds=settings.rounds)
    print_seconds(seconds, "opd")


main = command("bench_windows", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
