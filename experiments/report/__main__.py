"""One HTML page about runs: `python -m experiments.report WORKDIR... [--out FILE.html]`.

Config, scores, curves, what the monitor saw, exposure, sampled trajectories and graded samples; several
workdirs side by side. The page needs nothing but itself: no script, no font, no network. Only reads
the workdirs, and so may be called while a run goes on. `experiments.evaluate --out` directories may be
given as well, and appear among the scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.report.page import make_page
from experiments.workdir.results import read_run
from experiments.workdir.workdir import write_atomic

PAGE = "report.html"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description="One HTML page about one run or several."
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="of runs")
    parser.add_argument(
        "--out", type=Path, help=f"the page; WORKDIR/{PAGE} where there is a single workdir"
    )
    parser.add_argument(
        "--trajectories", type=int, default=12, help="sampled trajectories shown of a run (12)"
    )
    parser.add_argument(
        "--samples", type=int, default=6, help="graded samples shown of a run, after training (6)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        if options.out is None and len(options.workdirs) > 1:
            raise ValueError("With several workdirs give --out FILE.html.")
        runs = [read_run(directory) for directory in options.workdirs]
        out = options.out or runs[0].directory / PAGE
        page = make_page(runs, options.trajectories, options.samples)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, page.encode("utf-8"))
    except (OSError, ValueError) as error:
        print(f"No report was written. {error}", file=sys.stderr)
        return 1
    print(f"{out}: {len(page.encode()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
