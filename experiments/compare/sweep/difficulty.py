"""How hard the test problems are for the student before training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from experiments.config.tree import Config
from experiments.data.sources import load_source
from experiments.evaluate.measure import measure
from experiments.pair.pair import load_pair, start_student
from experiments.workdir.files import read_object, write_atomic
from experiments.workdir.logs import is_number

TERCILES = ("easy", "medium", "hard")
FILE = "difficulty.json"
# Answers per problem.
SAMPLES = 8


def success_shares(config: Config, workdir: Path) -> dict[str, float]:
    """The initial student's share of right answers, of `SAMPLES`, by problem of `data.test`.

    Measured once: kept in the workdir.

    Raises:
      ValueError: the file in the workdir is damaged.
    """
    path = workdir / FILE
    if path.exists():
        advice = "Remove it; it is then measured anew."
        shares = read_object(path, advice)
        if not all(is_number(share) for share in shares.values()):
            raise ValueError(f"{path} must hold a number for every problem. {advice}")
        return {problem: float(share) for problem, share in shares.items()}
    pair, test = load_pair(config), config.data.test
    assert test is not None
    examples = list(load_source(test.spec, needs_answer=True))
    student = pair.student(start_student(pair, config.seed))
    _, samples = measure(config, pair, student, examples, SAMPLES)
    verdicts: dict[str, list[bool]] = {}
    for sample in samples:
        verdicts.setdefault(sample["id"], []).append(bool(sample["right"]))
    shares = {problem: float(np.mean(right)) for problem, right in verdicts.items()}
    write_atomic(path, (json.dumps(shares) + "\n").encode())
    return shares


def terciles(shares: dict[str, float]) -> dict[str, list[str]]:
    """Problems from easy to hard in three equal parts; the order of the data breaks ties."""
    order = sorted(shares, key=lambda problem: -shares[problem])
    parts = np.array_split(np.array(order, object), len(TERCILES))
    return {name: list(part) for name, part in zip(TERCILES, parts, strict=True)}
