"""Checks what a finished run left in its workdir: `check_results.py WORKDIR [--min-gain 0.1]`."""

import argparse
import json
import math
import sys
from pathlib import Path


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read(text: str) -> dict:
    """Strict JSON: NaN and Infinity are refused."""
    return json.loads(text, parse_constant=_not_json)


def problems(workdir: Path, min_gain: float | None) -> list[str]:
    """What is wrong with a run's files; nothing where all is well."""
    wrong = []
    for name in ("config.json", "metrics.jsonl", "trajectories.jsonl", "report.png"):
        if not (workdir / name).is_file() or not (workdir / name).stat().st_size:
            wrong.append(f"{name} is missing or empty")
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        lines = (workdir / name).read_text().splitlines() if (workdir / name).is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                if not isinstance(read(line)["step"], int):
                    wrong.append(f"{name}, line {number}: step is not an integer")
            except (ValueError, KeyError, TypeError) as error:
                wrong.append(f"{name}, line {number}: {error!r}")
    steps = [p for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
    if not steps:
        wrong.append("there is no checkpoint")
    try:
        results = read((workdir / "results.json").read_text())
    except (OSError, ValueError) as error:
        return [*wrong, f"results.json: {error!r}"]
    for name in ("seed", "commit", "versions", "wall_seconds"):
        if results.get(name) is None:
            wrong.append(f"results.json has no {name}")
    for name in measured(results):
        try:
            wrong += [f"{name}: {text}" for text in score_problems(results[name])]
        except (KeyError, TypeError, ValueError) as error:
            wrong.append(f"results.json, {name}: {error!r}")
    if not wrong and min_gain is not None:
        gain = results["after"]["accuracy"] - results["before"]["accuracy"]
        if gain < min_gain:
            wrong.append(f"the student gained {gain:.3f}, less than {min_gain}")
    return wrong


def measured(results: dict) -> list[str]:
    """Whose scores there must be. A student that teaches itself has no teacher to be measured."""
    alone = "teacher" in results and results["teacher"] is None
    return ["before", "after"] if alone else ["before", "after", "teacher"]


def score_problems(score: dict) -> list[str]:
    """What is wrong with `before`, `after` or `teacher`."""
    accuracy, (low, high) = score["accuracy"], score["interval"]
    wrong = []
    if not 0 <= low <= accuracy <= high <= 1:
        wrong.append(f"accuracy {accuracy} and interval [{low}, {high}] do not go together")
    if not (isinstance(score["n"], int) and score["n"] > 0):
        wrong.append(f"n is {score['n']}")
    if not (math.isfinite(score["mean_length"]) and score["mean_length"] > 0):
        wrong.append(f"mean_length is {score['mean_length']}")
    if not 0 <= score["truncation_rate"] <= 1:
        wrong.append(f"truncation_rate is {score['truncation_rate']}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks what a finished run left.")
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--min-gain", type=float, help="of accuracy, from before to after")
    parser.add_argument("--seconds", type=float, help="how long the run should take; only reported")
    flags = parser.parse_args()
    wrong = problems(flags.workdir, flags.min_gain)
    for text in wrong:
        print(f"WRONG: {text}")
    if wrong:
        return 1
    results = read((flags.workdir / "results.json").read_text())
    for name in measured(results):
        score = results[name]
        low, high = score["interval"]
        print(f"{name:8} {score['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {score['n']}")
    seconds = results["wall_seconds"]
    print(f"wall time {seconds:.0f} s")
    if flags.seconds is not None and seconds > flags.seconds:
        print(f"SLOW: more than the {flags.seconds:.0f} s it should take here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
