"""What runs leave behind, to be compared bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.workdir.workdir import read_log


def train_log(workdir: Path) -> list[dict]:
    """Metrics of all updates, times left out."""
    return [
        {name: x for name, x in record.items() if name not in ("seconds", "tokens_per_second")}
        for record in read_log(workdir / "metrics.jsonl")
        if record["kind"] == "train"
    ]


def saved(workdir: Path, step: int) -> Any:
    """Everything that a checkpoint holds of the devices."""
    return ocp.PyTreeCheckpointer().restore(workdir / "checkpoints" / str(step) / "state")


def same(a: Any, b: Any) -> bool:
    """Whether two pytrees have the same structure and the same numbers."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )
