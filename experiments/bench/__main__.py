"""Speed and memory of ours and of other libraries, in turns, on the same shapes and weights.

Every measurement is a process of its own. All that belong to one workload are warmed up first, then
take repetitions in rounds; ratios are taken round by round. Peers are optional, and may live in
environments of their own; where one is absent the report says so.

    python3.11 -m venv peers && peers/bin/pip install torch==2.13.0 transformers trl==1.16.0 accelerate
    python3.11 -m venv tunix && tunix/bin/pip install google-tunix==0.1.7
    python -m experiments.bench --what all --model tiny --peer-python peers/bin/python \\
        --peer-python tunix=tunix/bin/python --out bench/tiny

Writes results.json, table.md and the processes' logs to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.describe import describe
from experiments.bench.order import measurements
from experiments.bench.processes import (
    ROOT,
    Result,
    Worker,
    own_command,
    peer_command,
    take_turns,
)
from experiments.bench.table import markdown
from experiments.bench.workloads import MODELS, PEERS, WHAT, request

# Nothing is read from a cache of compiled programs, except where that is what is measured.
_UNCACHED = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TOKENIZERS_PARALLELISM": "false"}


def bench(
    whats: Sequence[str],
    peers: Sequence[str],
    model: str,
    pythons: Mapping[str, str],
    repetitions: int,
    out: Path,
) -> list[Result]:
    """Measures, and writes what came out to `out` after every workload.

    Args:
      model: one of `MODELS`, or a Hugging Face directory, which is then student and teacher.
      pythons: interpreters by peer.

    Raises:
      RuntimeError: the models could not be written.
    """
    results: list[Result] = []
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        student, teacher, vocab_size = _models(model, Path(scratch), out)
        for what in whats:
            workers = []
            for who, variant in measurements(what, peers):
                result = Result(what, who, variant)
                results.append(result)
                message = request(what, variant, model, student, teacher, vocab_size)
                message["scratch"] = scratch
                command = own_command() if who in ("ours", "naive") else peer_command(who, pythons)
                name = "-".join(filter(None, (what, who, variant.replace(", ", "-"))))
                workers.append(
                    Worker(command, message, result, out / "logs" / f"{name}.log", _UNCACHED)
                )
            take_turns(workers, repetitions)
            _write(results, model, out)
    return results


def _models(model: str, scratch: Path, out: Path) -> tuple[Path, Path, int]:
    """Directories of student and teacher, and their vocabulary."""
    if model not in MODELS:
        path = Path(model).expanduser().resolve()
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return path, path, config["vocab_size"]
    config = MODELS[model]
    student, teacher = scratch / "student", scratch / "teacher"
    message = request("write", "", model, student, teacher, config.vocab_size)
    writer = Worker(
        own_command(), {**message, "model": model}, Result("write", "ours"), out / "logs/write.log"
    )
    take_turns([writer], 0)
    if writer.result.state != "done":
        raise RuntimeError(f"The models could not be written. {writer.result.message}")
    return student, teacher, config.vocab_size


def _write(results: Sequence[Result], model: str, out: Path) -> None:
    about = describe(results)
    fields: dict[str, Any] = {"model": model, **about}
    fields["results"] = [dataclasses.asdict(r) for r in results]
    (out / "results.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    (out / "table.md").write_text(markdown(results, model, about), encoding="utf-8")


def _names(text: str, known: Sequence[str], flag: str) -> list[str]:
    """Names between commas; `all` stands for every one."""
    names = list(known) if text == "all" else [n for n in text.split(",") if n]
    unknown = [n for n in names if n not in known]
    if unknown:
        raise ValueError(f"{flag} {','.join(unknown)}: choose among {', '.join(known)}, or all.")
    return names


def _pythons(texts: Sequence[str]) -> dict[str, str]:
    """Interpreters by peer: PATH for all, NAME=PATH for one.

    Raises:
      ValueError: no such peer, or one without an environment of its own.
    """
    found: dict[str, str] = {}
    outside = [peer for peer in PEERS if peer != "naive"]
    for text in sorted(texts, key=lambda text: "=" in text):  # those for one go last
        name, _, path = text.rpartition("=")
        if name and name not in outside:
            raise ValueError(f"--peer-python {text}: choose among {', '.join(outside)}.")
        found |= dict.fromkeys([name] if name else outside, path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a measurement failed, 2 for a wrong flag."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", default="all", help=f"all, or some of {','.join(WHAT)}")
    parser.add_argument("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    parser.add_argument(
        "--model", default="tiny", help=f"{', '.join(MODELS)}, or a Hugging Face directory"
    )
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="interpreter of all peers, or of one; this one by default",
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", default="bench", help="directory to write")
    flags = parser.parse_args(arguments)
    try:
        whats = _names(flags.what, WHAT, "--what")
        peers = [] if flags.peers == "none" else _names(flags.peers, PEERS, "--peers")
        pythons = _pythons(flags.peer_python)
    except ValueError as error:
        parser.error(str(error))
    if flags.repetitions < 1:
        parser.error(f"--repetitions {flags.repetitions} must be at least 1")
    if flags.model not in MODELS and not (Path(flags.model).expanduser() / "config.json").is_file():
        parser.error(
            f"--model {flags.model}: neither one of {', '.join(MODELS)} nor a directory with a "
            "config.json"
        )
    os.chdir(ROOT)  # so that `-m experiments.bench.worker` finds this checkout
    out = Path(flags.out).expanduser().resolve()
    results = bench(whats, peers, flags.model, pythons, flags.repetitions, out)
    print((out / "table.md").read_text(encoding="utf-8"))
    return int(any(r.state == "failed" for r in results))


if __name__ == "__main__":
    sys.exit(main())
