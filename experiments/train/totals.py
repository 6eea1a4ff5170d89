"""What a run comes to, added up as it goes: of every update, and what evaluations measured.

The sums travel in the checkpoints. metrics.jsonl is for people and pictures; where it is lost or
edited the results stay right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.workdir.files import plain
from experiments.workdir.outcome import ROLES

# Means over trajectories, as far as a method measures them.
_SHARES = ("backtracked", "dropped", "truncated", "accepted", "kept", "reward")


class Totals:
    """Sums over the updates so far, and the scores of `before`, `after` and `teacher`."""

    def __init__(self) -> None:
        self._updates = 0
        self._sums = {"loss_tokens": 0.0, "seconds": 0.0}
        self._synthesis: dict[str, float] = {}
        self._scores: dict[str, dict[str, Any]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes in an update: its metrics, as logged."""
        self._updates += 1
        for name in self._sums:
            self._sums[name] += metrics[name]
        if "rows" not in metrics:
            return
        rows = metrics["rows"]
        parts = {"rows": rows, **{x: metrics[x] * rows for x in _SHARES if x in metrics}}
        parts |= {
            name: metrics[name]
            for name in metrics
            if name.startswith("tokens_") and name != "tokens_per_second"
        }
        for name, value in parts.items():
            self._synthesis[name] = self._synthesis.get(name, 0.0) + value

    def score(self, data: str, role: str, summary: Mapping[str, Any]) -> None:
        """Takes in what an evaluation measured of a role on a data set."""
        self._scores[f"{data}/{role}"] = plain(summary)

    def get_state(self) -> dict[str, Any]:
        """As JSON."""
        return plain(
            {
                "updates": self._updates,
                "sums": self._sums,
                "synthesis": self._synthesis,
                "scores": self._scores,
            }
        )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where a checkpoint stood."""
        self._updates = state["updates"]
        # A sum that is not finite is a text in JSON.
        self._sums = {name: float(x) for name, x in state["sums"].items()}
        self._synthesis = {name: float(x) for name, x in state["synthesis"].items()}
        self._scores = {name: dict(x) for name, x in state["scores"].items()}

    def results(self, long: bool) -> dict[str, Any]:
        """For results.json.

        Args:
          long: whether longer problems were measured too.
        """
        results: dict[str, Any] = {role: self._scores.get(f"test/{role}") for role in ROLES}
        if long:
            results["long"] = {role: self._scores.get(f"long/{role}") for role in ROLES}
        results["synthesis"] = self._shares()
        results["loss_tokens"] = int(self._sums["loss_tokens"])
        results["train_seconds"] = self._sums["seconds"]
        return results

    def _shares(self) -> dict[str, Any] | None:
        """What the run trained on: shares of trajectories, where logged, and tokens by source."""
        if "rows" not in self._synthesis:
            return None
        sums = self._synthesis
        tokens = {
            name.removeprefix("tokens_"): int(value)
            for name, value in sums.items()
            if name.startswith("tokens_")
        }
        shares = {name: sums[name] / sums["rows"] for name in _SHARES if name in sums}
        return {"trajectories": int(sums["rows"]), **shares, "tokens": tokens}
