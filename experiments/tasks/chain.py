r"""The embedded task: chains of arithmetic modulo 10, generated without end.

`a=3,b=+8,c=*4?` asks for the last variable, each applying its operation to the one before. It is
solved a step at a time in one of two styles,

    student   b=3+8=1.\n\nc=1*4=4.\n\n\boxed{4}
    teacher   +8 on 3: b=1.\n\n*4 on 1: c=4.\n\n\boxed{4}

A solver may hold misconceptions: one-step facts (`3+8`) that it gets wrong in one fixed way. It may
also be given a reference block, the first steps of a right solution and its answer. It copies the
steps and goes on by itself, with its misconceptions and in spite of the answer:

    R:b=3+8=1.\n\n\boxed{4}\n#\na=3,b=+8,c=*4?
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import random
import string
from collections.abc import Iterator
from typing import ClassVar

from experiments.tasks.example import Example

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
OPERANDS = range(2, 10)
STYLES = ("student", "teacher", "both")
# The text of a problem that shows (a part of) its reference before the question itself.
REFERENCE_BLOCK = "R:{reference}\n#\n{problem}"
SPLITS = ("train", "validation", "test", "long")
# A tenth of all problems each, told apart by a hash of the text; the rest is for training.
HASH_BUCKETS = {"validation": (0,), "test": (1,), "long": (1,), "train": tuple(range(2, 10))}
_STEPS = {"train": (2, 5), "validation": (2, 5), "test": (2, 5), "long": (6, 8)}
_SIZES = {"train": 1_000_000, "validation": 1_000, "test": 1_000, "long": 1_000}

# A digit, an operation and an operand.
Fact = tuple[int, str, int]


def apply(digit: int, operation: str, operand: int) -> int:
    """The true result of one step, a digit."""
    return OPERATIONS[operation](digit, operand) % 10


def draw_misconceptions(count: int, seed: int) -> dict[Fact, int]:
    """The first `count` of the 240 one-step facts in a seeded order, with fixed wrong results."""
    rng = random.Random(f"misconceptions/{seed}")
    facts = [(d, op, n) for d in range(10) for op in OPERATIONS for n in OPERANDS]
    rng.shuffle(facts)
    wrong = {fact: (apply(*fact) + rng.randint(1, 9)) % 10 for fact in facts}
    return {fact: wrong[fact] for fact in facts[:count]}


@dataclasses.dataclass(frozen=True)
class ArithmeticSource(abc.ABC):
    """Problems of one-step facts modulo 10: what chains and tales share.

    The question itself depends on seed, split, index and the step range alone, so that two sources
    that differ in the other options solve the same questions.

    Attributes:
      split: `train`, `validation`, `test` (disjoint whatever the seeds: a hash of the
        question's text decides) or `long` (more steps than trained on; also apart from training).
      size: number of instances; 0 takes a million for training and a thousand otherwise.
      seed: another seed gives other problems.
      min_steps, max_steps: operations per problem, at most `LIMIT`; 0 takes 2 to 5, and 6 to 8 for
        `long`.
      style: style of the reference, one of `STYLES`; `both` draws one of the others.
      misconceptions: how many one-step facts the reference's author holds wrong, of 240. An error
        propagates to the reference's boxed answer; `Example.answer` stays true.
      misconception_rate: probability that a misconceived fact comes out wrong when used.
      misconception_seed: which facts, and their wrong results.
      misconceptions_from: index of the first instance that suffers from misconceptions.

    Raises:
      ValueError: names the option that is out of range.
    """

    STYLES: ClassVar[tuple[str, ...]]
    LIMIT: ClassVar[int]
    # Options that are probabilities.
    SHARES: ClassVar[tuple[str, ...]] = ("misconception_rate",)

    split: str
    size: int = 0
    seed: int = 0
    min_steps: int = 0
    max_steps: int = 0
    style: str = ""
    misconceptions: int = 0
    misconception_rate: float = 0.75
    misconception_seed: int = 0
    misconceptions_from: int = 0

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} is not one of {SPLITS}.")
        if self.style not in self.STYLES:
            raise ValueError(f"style={self.style!r} is not one of {self.STYLES}.")
        if self.size < 0:
            raise ValueError(f"size={self.size} must be 0 (all) or more.")
        low, high = self.steps
        if not 1 <= low <= high <= self.LIMIT:
            raise ValueError(
                f"min_steps={low} and max_steps={high} must satisfy 1 <= min <= max <= "
                f"{self.LIMIT}."
            )
        if not 0 <= self.misconceptions <= 240:
            raise ValueError(f"misconceptions={self.misconceptions} must lie in 0..240.")
        for name in self.SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1.")
        wrong = draw_misconceptions(self.misconceptions, self.misconception_seed)
        object.__setattr__(self, "_wrong", wrong)

    @property
    def steps(self) -> tuple[int, int]:
        """Fewest and most operations of a problem, defaults filled in."""
        low, high = _STEPS[self.split]
        return self.min_steps or low, self.max_steps or high

    def __len__(self) -> int:
        return self.size or _SIZES[self.split]

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in a source of {len(self)} instances.")

    def _wrong_at(self, index: int) -> dict[Fact, int]:
        known = index < self.misconceptions_from
        return {} if known else self._wrong  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class ChainSource(ArithmeticSource):
    """Instances of the task: item `i` is a function of (seed, split, i) and the options.

    Attributes:
      reference_block: share of instances whose problem begins with a reference block: n whole steps
        of the right solution, n uniform in 0..steps, and the true answer in a box. The reference
        then repeats the n steps and goes on from there with its author's misconceptions.
      others: as in `ArithmeticSource`.

    Raises:
      ValueError: names the option that is out of range.
    """

    STYLES = STYLES
    LIMIT = len(string.ascii_lowercase) - 1
    SHARES = ("misconception_rate", "reference_block")

    style: str = "student"
    reference_block: float = 0.0

    def __getitem__(self, index: int) -> Example:
        self._check(index)
        rng = random.Random(f"chain/{self.split}/{self.seed}/{index}")
        start, chain = self._draw_problem(rng)
        style = rng.choice(("student", "teacher")) if self.style == "both" else self.style
        wrong = self._wrong_at(index)
        answer = start
        for operation, operand in chain:
            answer = apply(answer, operation, operand)
        problem, shown = _write_problem(start, chain), self._draw_shown(index, len(chain))
        steps, value = self._solve(start, chain, style, wrong, rng, shown or 0)
        if shown is not None:
            block = "".join(steps[:shown]) + _box(answer)
            problem = REFERENCE_BLOCK.format(reference=block, problem=problem)
        return Example(
            id=f"chain/{self.split}/{self.seed}/{index}",
            problem=problem,
            reference="".join(steps) + _box(value),
            answer=str(answer),
            source=f"chain/{self.split}",
        )

    def _draw_problem(self, rng: random.Random) -> tuple[int, list[tuple[str, int]]]:
        operations = tuple(OPERATIONS)
        while True:
            start, steps = rng.randrange(10), rng.randint(*self.steps)
            chain = [(rng.choice(operations), rng.choice(OPERANDS)) for _ in range(steps)]
            if hash_bucket(_write_problem(start, chain)) in HASH_BUCKETS[self.split]:
                return start, chain

    def _draw_shown(self, index: int, steps: int) -> int | None:
        """How many steps the block of this instance shows; None: it has no block."""
        # A stream of its own: blocks change neither the questions nor the instances without one.
        rng = random.Random(f"block/{self.split}/{self.seed}/{index}")
        return rng.randint(0, steps) if rng.random() < self.reference_block else None

    def _solve(
        self, start, chain, style: str, wrong: dict[Fact, int], rng: random.Random, shown: int
    ) -> tuple[list[str], int]:
        """The steps, of which the first `shown` are right, and the result of the last."""
        texts, value = [], start
        for i, (operation, operand) in enumerate(chain):
            name, before, fact = string.ascii_lowercase[i + 1], value, (value, operation, operand)
            slips = i >= shown and fact in wrong and rng.random() < self.misconception_rate
            value = wrong[fact] if slips else apply(*fact)
            if style == "student":
                texts.append(f"{name}={before}{operation}{operand}={value}.\n\n")
            else:
                texts.append(f"{operation}{operand} on {before}: {name}={value}.\n\n")
        return texts, value


def hash_bucket(problem: str) -> int:
    """0 to 9, from the question's text alone: which split the problem belongs to."""
    return int.from_bytes(hashlib.blake2b(problem.encode(), digest_size=8).digest()) % 10


def _write_problem(start: int, chain: list[tuple[str, int]]) -> str:
    names = string.ascii_lowercase[1:]
    steps = (f",{name}={op}{n}" for name, (op, n) in zip(names, chain, strict=False))
    return f"a={start}{''.join(steps)}?"


def _box(value: int) -> str:
    return f"\\boxed{{{value}}}"
