"""What a compiled program computes and sends, counted in its text.

XLA's own cost analysis counts the body of a loop once, however often it runs; here a body counts as
often as the program says that it does. All of it is per device: the program is that of one.

`jax.experimental.roofline` (of jax 0.10) does not do: it reads the program before it is compiled,
counts a scan's body once and what is inside `while` and `cond` not at all, and sees no collective
that the compiler puts in to keep shardings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
)
_BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "f8": 8,
    "s16": 16,
    "u16": 16,
    "f16": 16,
    "bf16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
}

# Custom calls that multiply matrices; others arrange buffers and indices.
_KERNELS = ("tpu_custom_call", "__cudnn", "__cublas", "__onednn", "__gpu$")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)(?:e\d\w*)?\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass
class Cost:
    """Of one run of a program, on one device.

    Attributes:
      flops: of matrix products and convolutions, 2 per multiplication and addition.
      sent: bytes of collectives by kind, each with the larger of what goes in and what comes out.
      collectives: how many of them.
      unknown_loops: loops whose length depends on data.
      kernels: calls by name whose FLOPs the text does not tell: Pallas and libraries' products.
    """

    flops: float = 0.0
    sent: Counter[str] = dataclasses.field(default_factory=Counter)
    collectives: Counter[str] = dataclasses.field(default_factory=Counter)
    unknown_loops: int = 0
    kernels: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, other: Cost, times: int = 1) -> None:
        """Adds another program, `times` over."""
        self.flops += times * other.flops
        self.unknown_loops += other.unknown_loops
        for name in ("sent", "collectives", "kernels"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key, value in theirs.items():
                mine[key] += times * value


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    op: str
    rest: str

    @property
    def operands(self) -> list[str]:
        depth, end = 1, len(self.rest)
        for i, character in enumerate(self.rest):
            depth += (character == "(") - (character == ")")
            if not depth:
                end = i
                break
        return _OPERAND.findall(self.rest[:end])


def program_cost(text: str, unknown_trips: int = 1) -> Cost:
    """The cost of a compiled module.

    Args:
      text: `compiled.as_text()`.
      unknown_trips: how often the body of a loop counts whose length depends on data.
    """
    computations, entry = _parse(text)
    done: dict[str, Cost] = {}

    def cost(name: str) -> Cost:
        if name not in done:
            done[name] = _cost(computations, name, cost, unknown_trips)
        return done[name]

    return cost(entry)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        if current is None:
            found = _COMPUTATION.match(line)
            if found and not line.startswith("HloModule"):
                current = computations.setdefault(found[1], [])
                entry = found[1] if line.startswith("ENTRY") else entry
        elif line.rstrip() == "}":  # a kernel's attributes may go over several lines
            current = None
        elif found := _INSTRUCTION.match(line):
            current.append(_Instruction(*found.groups()))
    if not entry:
        raise ValueError("This is not the text of a compiled module: it has no ENTRY.")
    return computations, entry


def _cost(
    computations: dict[str, list[_Instruction]],
    name: str,
    cost: Callable[[str], Cost],
    unknown_trips: int,
) -> Cost:
    instructions = computations.get(name, [])
    shapes = {i.name: i.shape for i in instructions}
    total = Cost()
    for i in instructions:
        kind = i.op.removesuffix("-start")
        if kind in COLLECTIVES:
            total.sent[kind] += _sent(i, shapes)
            total.collectives[kind] += 1
        elif i.op == "dot":
            total.flops += _dot(i, shapes)
        elif i.op == "convolution":
            total.flops += _convolution(i, shapes)
        elif i.op == "while":
            trips = _trips(i, computations)
            total.unknown_loops += trips is None
            body = re.search(r"body=%?([\w.\-]+)", i.rest)
            assert body is not None
            total.add(cost(body[1]), unknown_trips if trips is None else trips)
        elif i.op == "conditional":
            branches = _BRANCHES.search(i.rest)
            names = _OPERAND.findall(branches[1]) if branches else _CALLED.findall(i.rest)
            # The dearer branch.
            total.add(max(map(cost, names), key=lambda c: (c.flops, sum(c.sent.values()))))
        else:
            if i.op == "custom-call":
                target = re.search(r'custom_call_target="([^"]*)"', i.rest)
                if target and target[1].startswith(_KERNELS):
                    total.kernels[target[1]] += 1
            for name in _CALLED.findall(i.rest):
                total.add(cost(name))
    return total


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """How often a loop runs; None where that depends on data.

    Programs for a TPU do not say it, but compare the counter with a constant; jax counts from 0.
    """
    if found := _TRIPS.search(loop.rest):
        return int(found[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    instructions = computations.get(condition[1], []) if condition else []
    constants = {i.name: i.rest for i in instructions if i.op == "constant"}
    for i in instructions:
        if i.op == "compare" and "direction=LT" in i.rest and i.operands[1] in constants:
            return int(constants[i.operands[1]].partition(")")[0])
    return None


def _arrays(shape: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for dtype, sizes in _ARRAY.findall(shape):
        yield dtype, tuple(int(n) for n in sizes.split(",") if n)


def _bytes(shape: str) -> int:
    return sum(math.prod(sizes) * _BITS.get(dtype, 8) // 8 for dtype, sizes in _arrays(shape))


def _only(shape: str) -> tuple[int, ...]:
    return next(_arrays(shape))[1]


def _sent(i: _Instruction, shapes: dict[str, str]) -> int:
    into = sum(_bytes(shapes.get(name, "")) for name in i.operands)
    out = _bytes(i.shape)
    # What starts in the background returns its operands, too.
    return max(into, out - into if i.op.endswith("-start") and i.shape.startswith("(") else out)


def _dot(i: _Instruction, shapes: dict[str, str]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)
    left = _only(shapes[i.operands[0]])
    axes = [int(n) for n in contracted[1].split(",") if n] if contracted else []
    return 2 * math.prod(_only(i.shape)) * math.prod(left[axis] for axis in axes)


def _convolution(i: _Instruction, shapes: dict[str, str]) -> int:
    """A convolution as TPUs multiply matrices by it: an axis that both have becomes a spatial one.

    Then the window is so dilated that most of it lies on no number: what lies on one is counted.
    """
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", i.rest)
    assert labels is not None
    left, right = (_only(shapes[name]) for name in i.operands[:2])
    ins, kernel, outs = (
        dict(zip(axes, shape, strict=True))
        for axes, shape in zip(labels.groups(), (left, right, _only(i.shape)), strict=True)
    )
    window = re.search(r"window=\{([^}]*)\}", i.rest)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    pairs = 1
    for number, axis in enumerate(sorted(a for a in outs if a.isdigit())):

        def field(name: str, default: str, number: int = number) -> str:
            return fields[name].split("x")[number] if name in fields else default

        pairs *= _pairs(
            ins[axis],
            kernel[axis],
            outs[axis],
            int(field("stride", "1")),
            int(field("pad", "0_0").split("_")[0]),
            int(field("lhs_dilate", "1")),
            int(field("rhs_dilate", "1")),
        )
    return 2 * outs["b"] * outs["f"] * kernel["i"] * pairs


@functools.cache
def _pairs(
    size: int, kernel: int, out: int, stride: int, pad: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs of a place in the output and one in the kernel that meet a number of the input."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - pad
    return int(np.sum((at >= 0) & (at % dilation == 0) & (at // dilation < size)))
