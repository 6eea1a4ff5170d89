"""Run directories without training, as the report reads them: a MOTAB run and an ATESD run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from configs import atesd, motab

from .study_runs import ENVIRONMENT, write_lines

# What must come out of the page as it went in, and never as markup.
HOSTILE = '<script>alert("x")</script> & $\\frac{1}{2}$ </details> {{ 7 * 7 }}'


def score(accuracy: float, n: int = 64) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "interval": [max(0.0, accuracy - 0.08), min(1.0, accuracy + 0.08)],
        "n": n,
        "samples": 4,
        "mean_length": 45.25,
        "truncation_rate": 0.015,
        "pass_at_k": {"1": accuracy, "2": min(1.0, accuracy + 0.05), "4": min(1.0, accuracy + 0.1)},
        "majority": accuracy,
        "tokens": 1000,
        "seconds": 1.0,
    }


def graded(right: list[bool], text: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"chain/test/0/{i}", "sample": 0, "problem": "a=3,b=+8,c=*4?", "answer": "4",
            "text": text, "final": "4" if ok else "7", "right": ok, "length": 40, "truncated": False,
        }
        for i, ok in enumerate(right)
    ]  # fmt: skip


def trajectory(step: int, index: int, text: str = "b=3+8=1.\n\n") -> dict[str, Any]:
    """Every second one breached at its second step."""
    breached = index % 2 == 0
    parts = [{"source": "student", "text": text}]
    if breached:
        parts += [
            {"source": "flawed", "text": "c=1*4=5.\n\n"},
            {"source": "revision", "text": "However,\n\n"},
            {"source": "teacher", "text": "c=1*4=4.\n\n\\boxed{4}"},
        ]
    else:
        parts[0]["text"] += "c=1*4=4.\n\n\\boxed{4}"
    return {
        "step": step, "id": f"chain/train/0/{index}", "prompt": "a=3,b=+8,c=*4?", "answer": "4",
        "parts": parts, "steps": [text, "c=1*4=5.\n\n"], "values": [0.97, 0.12 if breached else 0.93],
        "boundaries": [0.35, 0.69], "breach": 1 if breached else -1, "root": 1 if breached else -1,
        "depth": 0, "dropped": False, "truncated": index % 5 == 0,
    }  # fmt: skip


def _write(directory: Path, config: Any, metrics: list[dict], trajectories: list[dict]) -> None:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    write_lines(directory / "metrics.jsonl", metrics)
    write_lines(directory / "trajectories.jsonl", trajectories)


def _validation(steps: int) -> list[dict[str, Any]]:
    return [
        {"step": s, "kind": "validation", "accuracy": s / steps, "low": s / steps - 0.1, "high": 1.0, "n": 8}
        for s in range(10, steps + 1, 10)
    ]  # fmt: skip


def write_motab(directory: Path, text: str = "b=3+8=1.\n\n", finished: bool = True) -> Path:
    """A run of 40 updates; `text` is the student's first step and every graded sample."""
    config = motab.get_config()
    config.steps = 40
    config.prompt.format = text
    noise = np.random.default_rng(0)
    train = [
        {
            "step": s, "kind": "train", "loss": 2.0 / s + 0.1 * noise.random(), "grad_norm": 1.0 / s,
            "backtracked": 0.5, "value_mean": 0.8 + 0.1 * s / 40, "tokens": 900, "seconds": 0.3,
            "learning_rate": "nan" if s == 3 else 1e-3,
        }
        for s in range(1, 41)
    ]  # fmt: skip
    trajectories = [trajectory(s, i, text) for s in (1, 21) for i in range(6)]
    _write(directory, config, train + _validation(40), trajectories)
    if finished:
        results = {
            "before": score(0.5), "after": score(0.94), "teacher": score(1.0),
            "long": {"before": score(0.29), "after": score(0.1), "teacher": score(1.0)},
            "synthesis": {"trajectories": 12, "backtracked": 0.56,
                          "tokens": {"student": 1565, "flawed": 360, "revision": 360, "teacher": 1396}},
            "steps": 40, "loss_tokens": 3681, "wall_seconds": 97.0, "compile_seconds": 20.0, "seed": 0,
            **ENVIRONMENT,
        }  # fmt: skip
        (directory / "results.json").write_text(json.dumps(results))
        write_lines(
            directory / "samples" / "after-test.jsonl",
            graded([True, False] * 5, text + "\\boxed{4}"),
        )
    return directory


def write_atesd(directory: Path) -> Path:
    """An unfinished run whose controller has moved."""
    config = atesd.get_config()
    config.steps = 30
    train = [
        {
            "step": s, "kind": "train", "loss": 1.0 / s, "exposure": 0.5 + 0.01 * (s // 5), "mismatch": 0.3 / s,
            "beta_a": 1.69 + 0.02 * s, "beta_b": 1.69 - 0.01 * s, "probe_loss": 1.0 / s, "gain": 0.1 / s,
            "grounding": -0.3, "decision_reward": 0.1, "decisions_completed": float(s > 10), "seconds": 0.2,
        }
        for s in range(1, 26)
    ]  # fmt: skip
    trajectories = [
        {"step": 1, "id": "x", "prompt": "a=3,b=+8?", "answer": "1",
         "parts": [{"source": "student", "text": "\\boxed{1}"}]}
    ]  # fmt: skip
    measured = {"step": 0, "kind": "evaluation", "name": "before", "data": "test", **score(0.5)}
    _write(directory, config, [measured, *train, *_validation(20)], trajectories)
    return directory
