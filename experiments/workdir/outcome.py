"""results.json: what a run, or an evaluation, came to; every field that is relied on is checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from experiments.workdir.files import as_object, read_object
from experiments.workdir.logs import is_number
from models.paths import local_path

RESULTS = "results.json"
ROLES = ("before", "after", "teacher")
# What is measured before and after training: problems as long as those trained on, and longer.
TEST_SETS = ("test", "long")
# Who writes the tokens that are trained on, as metrics and samples name them.
SOURCES = ("student", "flawed", "revision", "teacher")
_ADVICE = "Remove the file; the command that wrote it then makes it anew from what else is there."


def read_results(path: str | os.PathLike[str], name: str = RESULTS) -> dict[str, Any] | None:
    """The results in a directory of a run or an evaluation, or None while there are none.

    Args:
      name: of the file, where it is another of the same form.

    Raises:
      ValueError: the file is damaged; names the file and the field.
    """
    file = local_path(path, "workdir") / name
    try:
        results = read_object(file, _ADVICE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        check_results(results)
    except ValueError as error:
        raise ValueError(f"{file}: {error} {_ADVICE}") from None
    return results


def check_results(results: Mapping[str, Any]) -> None:
    """Raises where results have not the form that readers rely on. What is absent is not looked at.

    Raises:
      ValueError: names the field.
    """
    for where in ("", "long."):
        scores = results if not where else results.get("long") or {}
        as_object(scores, "long")
        for role in ROLES:
            if scores.get(role) is not None:
                check_score(where + role, scores[role])
    if "accuracy" in results:
        check_score("", results)
    synthesis = results.get("synthesis")
    if synthesis is not None:
        as_object(synthesis, "synthesis")
        _check_numbers("synthesis", {k: v for k, v in synthesis.items() if k != "tokens"})
        if "tokens" in synthesis:
            _check_numbers("synthesis.tokens", as_object(synthesis["tokens"], "synthesis.tokens"))
    names = ("seed", "steps", "loss_tokens", "train_seconds", "wall_seconds", "compile_seconds")
    _check_numbers("", {name: results[name] for name in names if name in results})
    for name in ("versions", "settings"):
        if name in results:
            as_object(results[name], name)


def check_score(name: str, score: Any) -> None:
    """Raises where an accuracy, its interval, or what else a score has is of another type.

    Args:
      name: of the score, for the message; empty where it is the whole file.

    Raises:
      ValueError: names the field.
    """
    as_object(score, name or "a score")
    prefix = f"{name}." if name else ""
    if "accuracy" not in score:
        raise ValueError(f"{prefix}accuracy is missing.")
    numbers = ("accuracy", "n", "samples", "mean_length", "truncation_rate", "majority", "tokens")
    _check_numbers(name, {x: score[x] for x in (*numbers, "seconds") if x in score})
    interval = score.get("interval", [0, 1])
    if (
        not isinstance(interval, list)
        or len(interval) != 2
        or not all(is_number(x) for x in interval)
    ):
        raise ValueError(f"{prefix}interval={interval!r} must be two numbers.")
    for part in ("pass_at_k", "sources", "groups", "mean_of_sources"):
        if part in score:
            as_object(score[part], prefix + part)


def _check_numbers(name: str, fields: Mapping[str, Any]) -> None:
    for field, value in fields.items():
        if not is_number(value):
            prefix = f"{name}." if name else ""
            raise ValueError(f"{prefix}{field}={value!r} must be a number.")
