"""What ATESD's controller costs: `python -m experiments.bench_exposure [--rounds 12]`.

Whole steps (rollout, references, update) of `configs/atesd.py` and of `configs/opsd.py`, in turns, in
one process and on the same batches; medians over rounds of `hold` steps, so that every round has one
decision and one probe. OPSD runs without a probe and has no reward to measure: the difference is the
controller and all that it observes.
"""

from __future__ import annotations

import argparse

from configs import atesd, opsd
from experiments.bench.online_steps import print_seconds, time_steps
from experiments.methods import make_recipe


def main() -> None:
    """Prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    configs = {"opsd": opsd.get_config(), "atesd": atesd.get_config()}
    configs["opsd"].exposure.probe_size = 0
    hold = configs["atesd"].controller.hold
    # The warm-up completes decisions until the policy updates.
    seconds = time_steps(configs, make_recipe, warm_up=8 * hold, steps=hold, rounds=rounds)
    print_seconds(seconds, "opsd")


if __name__ == "__main__":
    main()
