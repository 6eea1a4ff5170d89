"""What TOPD's look ahead costs: `python -m experiments.bench_windows [--rounds 8]`.

Whole steps (rollout, windows, update) of `configs/topd.py`, of the same with `windows.student = "reuse"`,
and of `configs/topd.py:opd`, in turns, in one process and on the same batches; medians over rounds of five
steps. The ratio of gradients, which costs two more gradients when it is measured, is not. The students train,
so that their rollouts may differ in length after the first update. The paper reports 1.41 x OPD.
"""

from __future__ import annotations

import argparse

from configs import topd
from experiments.bench.online_steps import print_seconds, time_steps
from experiments.methods import make_recipe


def main() -> None:
    """Prints medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    arms = {"opd": "opd", "topd": "", "topd, reuse": ""}
    configs = {name: topd.get_config(arg) for name, arg in arms.items()}
    configs["topd, reuse"].windows.student = "reuse"
    for name in ("topd", "topd, reuse"):
        configs[name].guidance.gradient_ratio_every = 0
    print_seconds(time_steps(configs, make_recipe, warm_up=5, steps=5, rounds=rounds), "opd")


if __name__ == "__main__":
    main()
