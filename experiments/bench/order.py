"""Which processes a measurement consists of."""

from __future__ import annotations

from collections.abc import Sequence

# (who, variant) by what; "ours" comes first, and `who` is otherwise one of `workloads.PEERS`.
PLAN: dict[str, tuple[tuple[str, str], ...]] = {
    "generate": (("ours", ""), ("hf", "dynamic"), ("hf", "static"), ("tunix", "")),
    "train": (("ours", ""), ("torch", "eager"), ("torch", "compiled"), ("tunix", "")),
    "onpolicy": (("ours", ""), ("trl", ""), ("tunix", "")),
    "motab": (
        ("ours", ""),
        ("ours", "static batches"),
        ("ours", "parts"),
        ("naive", "literal"),
        ("naive", "literal, batched"),
    ),
    "loss": (("ours", ""), ("naive", "dense")),
    "engine": (("ours", ""),),
    "packing": (("ours", ""),),
    "compile": (("ours", "cold"), ("ours", "warm"), ("ours", "depth")),
}


def measurements(what: str, peers: Sequence[str]) -> list[tuple[str, str]]:
    """(who, variant) of every process that measures `what` against `peers`."""
    return [(who, variant) for who, variant in PLAN[what] if who == "ours" or who in peers]
