"""How a command of README or docs is run in a test: by the same code, on little."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Commands that need what no test has: a part of the command, and what it needs.
HARDWARE = {
    "/models/": "weights of several gigabytes, and accelerators",
    "...": "what the reader adds: several hosts, or a model",
    "qwen3_": "weights of several gigabytes, and accelerators",
    "experiments.bench": "environments of other libraries; tests/experiments/bench/test_bench.py runs its parts",
    "experiments.bench_engine": "a quiet machine",
    "experiments.bench_exposure": "a quiet machine",
    "experiments.bench_windows": "a quiet machine",
    "tests.soak": "half an hour; .ci/nightly runs it as it stands",
}
_EVALUATION = ["--max_new_tokens", "16", "--batch_size", "4"]


def needs(command: list[str]) -> str | None:
    """What a test lacks to run the command, if anything."""
    if command[-1] == "--help":
        return None
    for part, why in HARDWARE.items():
        if part in command or any(part.endswith(("/", "_")) and part in a for a in command):
            return why
    return None


def smoke_variant(command: list[str], workdir: Path, out: Path) -> list[str] | None:
    """The arguments of the command's smoke variant.

    Args:
      command: as `documents.commands` gives it.
      workdir: of a finished run of `configs/motab.py:smoke`, where the command wants a run. Beside
        it, in `WORKDIR-scored`, are scored solutions.
      out: a directory that is not there yet, for what it writes.

    Returns:
      None where nobody has said how.
    """
    module, rest = command[2], command[3:]
    if rest == ["--help"]:
        return command[1:]
    if module not in _BY_MODULE:
        return None
    return ["-m", module, *_BY_MODULE[module](rest, str(workdir), str(out))]


def _config(rest: list[str]) -> tuple[str, list[str]]:
    """`--config FILE[:ARG]` with `smoke` in or behind ARG, and the flags that set fields."""
    flag = rest[rest.index("--config") + 1]
    file, _, arg = flag.partition(":")
    if "FILE" in file:
        file, arg = "configs/motab.py", ""
    if arg.partition("[")[0] == "smoke" or arg.endswith("-smoke"):
        return flag, []
    return f"{file}:{arg}-smoke" if arg else f"{file}:smoke", [
        a for a in rest if a.startswith("--config.")
    ]


def _run(rest: list[str], workdir: str, out: str) -> list[str]:
    config, fields = _config(rest)
    shown = [a for a in rest if a == "--print_config"]
    return ["--config", config, "--workdir", out, *fields, *shown]


def _synthesize(rest: list[str], workdir: str, out: str) -> list[str]:
    return ["--config", _config(rest)[0], "--out", out + ".jsonl"]


def _study(rest: list[str], workdir: str, out: str) -> list[str]:
    file, _, variant = rest[rest.index("--config") + 1].partition(":")
    # Other models and another task; the other variants run the same code.
    smoke = "tales-smoke" if variant == "tales" else "smoke"
    return ["--config", f"{file}:{smoke}", "--workdir", out]


def _collect(rest: list[str], workdir: str, out: str) -> list[str]:
    return rest  # what it would write is there: see test_compare_collect.py


def _sweep(rest: list[str], workdir: str, out: str) -> list[str]:
    return [*_study(rest, workdir, out), "--problems", "16"]


def _evaluate(rest: list[str], workdir: str, out: str) -> list[str]:
    small = ["--model", "embedded:student", "--data", "chain/test", "--n", "2", "--size", "4"]
    return [*small, *_EVALUATION, "--out", out]


def _paired(rest: list[str], workdir: str, out: str) -> list[str]:
    before, after = (f"{workdir}/samples/{name}-test.jsonl" for name in ("before", "after"))
    return ["--before", before, "--after", after, "--out", out + ".json"]


def _data(rest: list[str], workdir: str, out: str) -> list[str]:
    """The same flags; data sets of the hub, and what the reader has, are a sample here."""
    flags: list[str] = []
    for argument in rest:
        if argument.startswith("--"):
            flags.append(argument)
        elif flags[-1] == "--out":
            flags.append(out + ".jsonl")
        elif flags[-1] == "--name" and not argument.startswith("sample/"):
            flags.append("sample/math")
        elif flags[-1] == "--against":
            flags.append("sample/gsm8k")
        elif "--against" not in flags:
            flags.append(argument)
    return flags


def _diagnose(rest: list[str], workdir: str, out: str) -> list[str]:
    models = ["--student", "embedded:student", "--teacher", "embedded:teacher"]
    window = ["--window", "4"] if "--window" in rest else []
    return [*models, "--data", "chain/test", "--size", "4", "--n", "2", *_EVALUATION, "--min_problems", "2", *window, "--out", out]  # fmt: skip


def _score(rest: list[str], workdir: str, out: str) -> list[str]:
    models = ["--student", "embedded:student", "--teacher", "embedded:teacher"]
    return [*models, "--data", "chain/test", "--size", "4", "--n", "2", *_EVALUATION, "--out", out]


def _figures(rest: list[str], workdir: str, out: str) -> list[str]:
    shown = ["--show", "3"] if "--show" in rest else []
    return ["--rollouts", f"{workdir}-scored", *shown]


def _backtracked(rest: list[str], workdir: str, out: str) -> list[str]:
    # At this boundary any solution breaches.
    small = ["--gamma_0", "1", "--alpha", "0", "--corrections", "1", "--batch_size", "4"]
    return ["--rollouts", f"{workdir}-scored", *small]


def _local_test(rest: list[str], workdir: str, out: str) -> list[str]:
    return ["--config", _config(rest)[0], "--prefixes", "4", "--steps", "2", "--out", out]


def _as_it_stands(rest: list[str], workdir: str, out: str) -> list[str]:
    return rest  # it only reads the code


def _export(rest: list[str], workdir: str, out: str) -> list[str]:
    return ["--workdir", workdir, "--out", out]


def _plan(rest: list[str], workdir: str, out: str) -> list[str]:
    return ["--config", _config(rest)[0], "--mesh", "data=2"]


def _report(rest: list[str], workdir: str, out: str) -> list[str]:
    return [workdir, "--out", out + ".html"]


def _show(rest: list[str], workdir: str, out: str) -> list[str]:
    return [workdir, *[a for a in rest if a == "--breached"]]


_BY_MODULE = {
    "experiments.run": _run,
    "experiments.synthesize": _synthesize,
    "experiments.compare": _study,
    "experiments.compare.collect": _collect,
    "experiments.exposure_sweep": _sweep,
    "experiments.evaluate": _evaluate,
    "experiments.data": _data,
    "experiments.paired": _paired,
    "experiments.diagnose": _diagnose,
    "experiments.diagnose.monitored.score": _score,
    "experiments.diagnose.monitored.figures": _figures,
    "experiments.diagnose.backtracked": _backtracked,
    "experiments.local_test": _local_test,
    "experiments.export": _export,
    "experiments.plan": _plan,
    "experiments.report": _report,
    "experiments.show": _show,
    "tests.count_lines": _as_it_stands,
}
