"""What must be reached, and whether it is."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

from experiments.bench.processes import Result
from experiments.bench.ratios import Spread, ratio, spread

Results = Sequence[Result]
# None where what it needs was not measured.
Measure = Callable[[Results], "Spread | None"]


@dataclasses.dataclass(frozen=True)
class Target:
    """One row of the table.

    Attributes:
      what: which measurements it belongs to.
      text: what is measured.
      bound: by model, or `any` for all: at least this, or at most where `at_most`.
      measure: the number, from the results of `what`.
      unit: of the number; a ratio has none.
    """

    what: str
    text: str
    bound: Mapping[str, float]
    measure: Measure
    at_most: bool = False
    unit: str = ""

    def bound_for(self, model: str) -> float | None:
        """The bound for a model; None where there is none."""
        return self.bound.get(model, self.bound.get("any"))

    def reached(self, value: float, bound: float) -> bool:
        """Whether the number is on the right side."""
        return value <= bound if self.at_most else value >= bound

    def missed_by(self, value: float, bound: float) -> float:
        """By what share of the bound it is missed; 0 where it is reached."""
        return 0.0 if self.reached(value, bound) else abs(value / bound - 1)


def find(results: Results, who: str, variant: str | None = None) -> list[Result]:
    """Finished measurements of one library, of one variant or all."""
    return [
        r for r in results if r.who == who and r.state == "done" and variant in (None, r.variant)
    ]


def faster_than(*peers: tuple[str, str | None]) -> Measure:
    """How many times faster than the fastest of these peers we are."""

    def measure(results: Results) -> Spread | None:
        ours = [r for r in find(results, "ours", "") if r.seconds]
        theirs = [r for peer in peers for r in find(results, *peer) if r.seconds]
        if not ours or not theirs:
            return None
        return ratio(_fastest(theirs).seconds, ours[0].seconds)

    return measure


def _fastest(results: Results) -> Result:
    return min(results, key=lambda r: statistics.median(r.seconds))


def times(who: str, variant: str) -> Measure:
    """How many times longer than this we take."""

    def measure(results: Results) -> Spread | None:
        ours, theirs = find(results, "ours", ""), find(results, who, variant)
        if not (ours and theirs and ours[0].seconds and theirs[0].seconds):
            return None
        return ratio(ours[0].seconds, theirs[0].seconds)

    return measure


def memory_of(who: str) -> Measure:
    """Our peak resident memory as a share of this peer's."""

    def measure(results: Results) -> Spread | None:
        ours, theirs = find(results, "ours", ""), find(results, who)
        if not (ours and theirs and ours[0].peak_mib and theirs[0].peak_mib):
            return None
        return spread([ours[0].peak_mib / theirs[0].peak_mib])

    return measure


def fact(name: str, variant: str = "") -> Measure:
    """A number that one of our own measurements reports: the value, or a list of them."""

    def measure(results: Results) -> Spread | None:
        for result in find(results, "ours", variant):
            if name in result.facts:
                value = result.facts[name]
                return spread(value if isinstance(value, list) else [value])
        return None

    return measure


def seconds_of(variant: str) -> Measure:
    """Seconds of one of our own measurements."""

    def measure(results: Results) -> Spread | None:
        found = [r for r in find(results, "ours", variant) if r.seconds]
        return spread(found[0].seconds) if found else None

    return measure


TARGETS = (
    Target(
        "generate",
        "speed, the best of transformers and Tunix = 1",
        {"tiny": 1.15, "small": 1.05},
        faster_than(("hf", None), ("tunix", "")),
    ),
    Target("train", "speed, Tunix = 1", {"tiny": 1.3, "small": 1.1}, faster_than(("tunix", ""))),
    Target(
        "train",
        "speed, eager torch = 1",
        {"tiny": 0.8, "small": 1.0},
        faster_than(("torch", "eager")),
    ),
    Target(
        "train", "peak resident memory, Tunix = 1", {"any": 0.7}, memory_of("tunix"), at_most=True
    ),
    Target("onpolicy", "speed, TRL's GKD = 1", {"any": 1.1}, faster_than(("trl", ""))),
    Target("onpolicy", "speed, Tunix = 1", {"any": 1.25}, faster_than(("tunix", ""))),
    Target(
        "loss",
        "compiled temporary memory, float32",
        {"any": 1.0},
        fact("temporary_gb_float32"),
        at_most=True,
        unit="GB",
    ),
    Target(
        "loss",
        "compiled temporary memory, bfloat16",
        {"any": 2.0},
        fact("temporary_gb_bfloat16"),
        at_most=True,
        unit="GB",
    ),
    Target("loss", "time, dense = 1", {"any": 1.3}, times("naive", "dense"), at_most=True),
    Target("motab", "time, its parts = 1", {"any": 1.25}, times("ours", "parts"), at_most=True),
    Target("motab", "speed, the literal loop = 1", {"any": 3.0}, faster_than(("naive", "literal"))),
    Target("engine", "slots occupied", {"any": 0.9}, fact("occupancy")),
    Target("engine", "speed, static batches = 1", {"any": 1.8}, fact("speedup")),
    Target("packing", "positions used", {"any": 0.95}, fact("used")),
    Target(
        "compile", "first step, no cache", {"any": 25.0}, seconds_of("cold"), at_most=True, unit="s"
    ),
    Target(
        "compile", "first step, cached", {"any": 5.0}, seconds_of("warm"), at_most=True, unit="s"
    ),
    Target(
        "compile",
        "train step of 16 layers, of 4 = 1",
        {"any": 1.2},
        fact("depth_ratio", "depth"),
        at_most=True,
    ),
    Target("generate", "share of the copy bandwidth", {"qwen3-1.7b": 0.6}, fact("of_bandwidth")),
    Target("train", "share of the matmul rate", {"qwen3-1.7b": 0.5}, fact("of_matmul_rate")),
)
