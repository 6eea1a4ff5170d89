"""The local test of TOPD: a few steps on one prefix, and how far apart the windows are then.

    python -m experiments.local_test --config configs/topd.py --out DIR

For every divergent prefix (a candidate whose D_OT passes the rule, in rollouts of the initial
student on training problems) the student starts afresh, takes `steps` steps of Adam on that prefix
alone, and writes its window again. D_OT is measured before and after against the same window of the
teacher, with the initial student's input embeddings. Windows and targets are made once. The arms
differ in the loss:

    opd     the divergence to the teacher along the student's own window
    topd    the same plus lambda L_traj, for every lambda

The paper (arXiv 2606.00305) has 1000 prefixes and 50 tokens: mean D_OT .538 before, .350 after OPD,
.204 after TOPD. It does not say what OPD trains on there, nor the rate.

local_test.json: `prefixes`, `threshold`, `before`, and in `after`, by arm, {"mean", "low", "high"}
with a 95 % bootstrap interval over prefixes and `closer`, the share of prefixes whose D_OT fell;
the flags, and the environment.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

from experiments.command.command import command
from experiments.command.config_flags import ConfigFlags
from experiments.command.flags import Flag

RESULTS = "local_test.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ConfigFlags):
    """Which prefixes, and what is done on each."""

    out: Annotated[Path, Flag(f"directory for {RESULTS}", "DIR")]
    prefixes: Annotated[int, Flag("divergent prefixes")] = 128
    steps: Annotated[int, Flag("gradient steps on each of them")] = 5
    rate: Annotated[float, Flag("Adam's learning rate")] = 1e-3
    lambdas: Annotated[
        tuple[float, ...], Flag("weights of L_traj", "LAMBDA,...", separator=",")
    ] = (0.1, 1.0)


def run(settings: Settings) -> None:
    """Runs the test and writes what came out."""
    from rich.console import Console

    from experiments.config.read import read_config
    from experiments.diagnose.local_steps import local_test, table
    from experiments.machine.compilation import keep_compiled
    from experiments.machine.environment import environment
    from experiments.workdir.workdir import plain, write_atomic

    config, out = read_config(settings.config.fields), settings.out
    keep_compiled()
    asked: dict[str, Any] = {
        "prefixes": settings.prefixes,
        "steps": settings.steps,
        "rate": settings.rate,
        "lambdas": list(settings.lambdas),
    }
    results = local_test(config, **asked)
    Console().print(table(results))
    content = {
        **results,
        "settings": asked,
        "config": settings.config.fields.to_dict(),
        **environment(),
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    write_atomic(out / RESULTS, text.encode())
    print(f"Wrote {out / RESULTS}")


main = command("local_test", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
