"""Where a breached solution is written anew from."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.diagnose.monitored.reading import Solution, Solutions

# The first is MOTAB's, to which the others are compared.
STARTS = ("root", "breach", "before", "random", "start")


@dataclasses.dataclass(frozen=True)
class Breached:
    """A solution that breaches.

    Attributes:
      starts: by name, the 0-based step before which a writer takes over: the TD root; the breach
        itself (rewriting); one step before it; a random one of the steps before it; the first.
    """

    solution: Solution
    starts: dict[str, int]

    @property
    def sample_id(self) -> int:
        """The solution's."""
        return self.solution.line["sample_id"]

    def prefix(self, step: int) -> tuple[int, ...]:
        """Token ids that are kept: those of the steps before `step`, never retokenised."""
        line = self.solution.line
        return tuple(line["token_ids"][: line["step_ends"][step - 1] if step else 0])


def breached_solutions(
    solutions: Solutions, gamma_0: float, alpha: float, seed: int
) -> list[Breached]:
    """All that breach, with their starts. A random start belongs to (seed, sample)."""
    found = []
    for x in solutions.all:
        breach, root = x.breach(gamma_0, alpha)
        if breach < 0:
            continue
        rng = np.random.default_rng((seed, x.line["sample_id"]))
        earlier = int(rng.integers(breach)) if breach else 0
        steps = (root, breach, max(breach - 1, 0), earlier, 0)
        found.append(Breached(x, dict(zip(STARTS, steps, strict=True))))
    return found
