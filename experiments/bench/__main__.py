"""Speed and memory of ours and of other libraries, in turns, on the same shapes and weights.

Every measurement is a process of its own. All that belong to one workload are warmed up first, then
take repetitions in rounds; ratios are taken round by round. Peers are optional, and may live in
environments of their own; where one is absent the report says so.

    python3.11 -m venv peers && peers/bin/pip install torch==2.13.0 transformers trl==1.16.0
    accelerate python3.11 -m venv tunix && tunix/bin/pip install google-tunix==0.1.7
    python -m experiments.bench --what all --model tiny --peer_python peers/bin/python \\
        --peer_python tunix=tunix/bin/python --out bench/tiny

Writes results.json, table.md and the processes' logs to --out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

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
from experiments.command.command import command
from experiments.command.flags import Flag
from experiments.machine.exit_codes import FAILED
from models.checks import Count

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
            raise ValueError(f"--peer_python {text}: choose among {', '.join(outside)}.")
        found |= dict.fromkeys([name] if name else outside, path)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, of whom, and how often."""

    what: Annotated[
        tuple[str, ...], Flag("workloads, or all", "WHAT,...", ("all", *WHAT), separator=",")
    ] = ("all",)
    peers: Annotated[
        tuple[str, ...],
        Flag("other libraries, all or none", "PEER,...", ("all", "none", *PEERS), separator=","),
    ] = ("all",)
    model: Annotated[str, Flag(f"{', '.join(MODELS)}, or a Hugging Face directory")] = "tiny"
    peer_python: Annotated[
        tuple[str, ...],
        Flag("interpreter of all peers, or of one; this one by default", "[NAME=]PATH"),
    ] = ()
    repetitions: Annotated[Count, Flag("of every measurement")] = 5
    out: Annotated[Path, Flag("directory to write", "DIR")] = Path("bench")

    def __post_init__(self) -> None:
        _pythons(self.peer_python)
        directory = Path(self.model).expanduser()
        if self.model not in MODELS and not (directory / "config.json").is_file():
            raise ValueError(
                f"--model={self.model}: neither one of {', '.join(MODELS)} nor a directory with a "
                "config.json."
            )


def _chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names, of which `all` stands for every one and `none` for no one."""
    return list(known) if "all" in names else [name for name in names if name != "none"]


def run(settings: Settings) -> int:
    """Measures; 1 where a measurement failed."""
    os.chdir(ROOT)  # so that `-m experiments.bench.worker` finds this checkout
    out = settings.out.expanduser().resolve()
    whats, peers = _chosen(settings.what, WHAT), _chosen(settings.peers, PEERS)
    pythons = _pythons(settings.peer_python)
    results = bench(whats, peers, settings.model, pythons, settings.repetitions, out)
    print((out / "table.md").read_text(encoding="utf-8"))
    return FAILED if any(r.state == "failed" for r in results) else 0


main = command("bench", Settings, run, __doc__)

if __name__ == "__main__":
    sys.exit(main())
