"""The local test of TOPD: a few steps on one prefix, and how far the two models' windows are apart after.

    python -m experiments.local_test --config configs/topd.py --out DIR
    --prefixes 128 --steps 5 --rate 1e-3 --lambdas 0.1,1

For every divergent prefix (a candidate whose D_OT passes the rule, in rollouts of the initial student on
training problems) the student starts afresh, takes `steps` steps of Adam on that prefix alone, and writes
its window again. D_OT is measured before and after against the same window of the teacher, with the
initial student's input embeddings. Windows and targets are made once. The arms differ in the loss:

    opd     the divergence to the teacher along the student's own window
    topd    the same plus lambda L_traj, for every lambda

The paper (arXiv 2606.00305) has 1000 prefixes and 50 tokens: mean D_OT .538 before, .350 after OPD, .204
after TOPD. It does not say what OPD trains on there, nor the rate.

local_test.json: `prefixes`, `threshold`, `before`, and in `after`, by arm, {"mean", "low", "high"} with a
95 % bootstrap interval over prefixes and `closer`, the share of prefixes whose D_OT fell; the flags, and
the environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from experiments.command.flags import parse_flags
from experiments.diagnose.local_steps import local_test, table
from experiments.machine.compilation import keep_compiled
from experiments.machine.environment import environment
from experiments.workdir.workdir import plain, write_atomic

RESULTS = "local_test.json"

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_OUT = flags.DEFINE_string("out", None, f"directory for {RESULTS}")
_PREFIXES = flags.DEFINE_integer("prefixes", 128, "divergent prefixes")
_STEPS = flags.DEFINE_integer("steps", 5, "gradient steps on each of them")
_RATE = flags.DEFINE_float("rate", 1e-3, "Adam's learning rate")
_LAMBDAS = flags.DEFINE_list("lambdas", ["0.1", "1"], "weights of L_traj")


def main(_: list[str]) -> None:
    """Runs the test that the flags ask for."""
    logging.set_verbosity(logging.WARNING)
    if _CONFIG.value is None or _OUT.value is None:
        sys.exit("Give --config configs/topd.py and --out DIR.")
    keep_compiled()
    try:
        asked: dict[str, Any] = {
            "prefixes": _PREFIXES.value,
            "steps": _STEPS.value,
            "rate": _RATE.value,
            "lambdas": [float(x) for x in _LAMBDAS.value],
        }
        results = local_test(_CONFIG.value, **asked)
        Console().print(table(results))
        content = {**results, "settings": asked, "config": _CONFIG.value.to_dict(), **environment()}
        out = Path(_OUT.value)
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
        write_atomic(out / RESULTS, text.encode())
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"Wrote {out / RESULTS}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
