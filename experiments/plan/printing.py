"""A plan as it is printed."""

from __future__ import annotations

from rich.console import Console

from experiments.command.say import say
from experiments.machine.placement import readable_bytes
from experiments.plan.programs import Plan, Program


def print_rollout(
    console: Console, plan: Plan, cache_rows: dict[str, int], positions: int, rows: int
) -> None:
    caches = ", ".join(f"{name} {readable_bytes(n)}" for name, n in cache_rows.items())
    for line in (
        f"Keys and values of a row of {positions:,} positions, in all: {caches}",
        f"A row of the rollout, caches and all, on each device that has a part of it: "
        f"{readable_bytes(plan.row)}",
        f"{rows:,} rows, on a device: {readable_bytes(plan.row * rows // plan.batch_parts)}",
        f"Copies of the parameters to decode with, on a device: {readable_bytes(plan.decoding)}",
    ):
        say(console, f"  {line}")


def print_program(
    console: Console, title: str, program: Program, blocks: int | None = None
) -> None:
    cost = program.cost
    lines = [
        f"temporaries {readable_bytes(program.temporary)}, new outputs "
        f"{readable_bytes(program.output)}, {cost.flops:.3g} FLOPs",
        "collectives: "
        + (
            ", ".join(
                f"{cost.collectives[kind]:,} {kind} {readable_bytes(sent)}"
                for kind, sent in sorted(cost.sent.items())
            )
            or "none"
        ),
    ]
    if cost.unknown_loops and blocks is None:
        lines.append(f"loops of unknown length, counted once: {cost.unknown_loops}")
    elif cost.unknown_loops:
        lines.append(
            f"the loss forms logits in {blocks} blocks, all of them counted; those in which "
            "nothing trains cost nothing"
        )
    if cost.kernels:
        names = ", ".join(f"{n:,} {name}" for name, n in sorted(cost.kernels.items()))
        lines.append(f"not counted are the FLOPs of kernels: {names}")
    say(console, f"\n  {title}; on a device (compiled in {program.seconds:.0f} s)")
    for line in lines:
        say(console, f"    {line}")


def print_memory(console: Console, plan: Plan, memory_gb: float | None) -> None:
    peak = {"held throughout": plan.held}
    if (train := plan.programs.get("train")) is not None:
        peak["in the train step"] = plan.held + train.temporary + train.output
    rest = plan.held + plan.decoding
    for name in ("rollout", "prefill"):
        if (program := plan.programs.get(name)) is not None:
            peak[f"in the {name}, without its rows"] = rest + program.temporary
    say(console, "\n  A device needs")
    for name, n in peak.items():
        say(console, f"    {readable_bytes(n):>9}  {name}")
    if memory_gb is None:
        say(console, "  With --device_memory=GB: whether that fits, and how many rows do.")
        return
    memory = memory_gb * 1e9
    train = plan.programs.get("train")
    if train is not None:
        fits = peak["in the train step"] <= memory
        say(console, f"  The train step {'fits' if fits else 'does not fit'} in {memory_gb:g} GB.")
    if plan.row:
        rows = f"{plan.slots(memory):,}"
        say(console, f"  Rows that can be written at the same time, at the longest text: {rows}")
