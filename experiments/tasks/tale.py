r"""Tales of who has how many: the chain task told in sentences, with idle ones in between.

    Tale:
    Al has 7.
    It is hot.
    Bo has 3 more than Al.
    Bo is 2 older than Al.
    Cy has 4 for each of Bo's.
    What has Cy?

All counts are modulo 10. Weather and ages matter to nobody. The two styles of a solution are

    names    one person after the other:
             Al: given, Al 7.\n\nBo: Al 7 + 3, Bo 0.\n\nCy: Bo 0 * 4, Cy 0.\n\n\boxed{0}
    plan     all operations first, then their results:
             From 7: + 3, * 4.\n\nSo 7 + 3 is 0.\n\nSo 0 * 4 is 0.\n\n\boxed{0}

A solver may hold misconceptions, as in `experiments.tasks.chain`: one-step facts that it gets
wrong. It may also repair its slips: after a wrong step it writes `However,`, and then the same step
again, right.
"""

from __future__ import annotations

import dataclasses
import random

from experiments.tasks.chain import (
    HASH_BUCKETS,
    OPERANDS,
    OPERATIONS,
    ArithmeticSource,
    Fact,
    apply,
    hash_bucket,
)
from experiments.tasks.example import Example

STYLES = ("names", "plan", "both")
REVISION = "However,\n\n"
TITLE = "Tale:"
# No two begin with the same letter.
NAMES = (
    "Al",
    "Bo",
    "Cy",
    "Di",
    "Ed",
    "Flo",
    "Gus",
    "Hal",
    "Ida",
    "Jo",
    "Kim",
    "Lou",
    "Max",
    "Ned",
    "Ola",
    "Pat",
    "Ray",
    "Sue",
    "Tim",
    "Una",
    "Vic",
    "Wes",
    "Yan",
    "Zoe",
)
GIVEN = "{who} has {n}."
PHRASES = {
    "+": ("{who} has {n} more than {of}.", "{who} has {n} and what {of} has."),
    "-": ("{who} has {n} less than {of}.", "{who} lacks {n} of what {of} has."),
    "*": ("{who} has {n} times what {of} has.", "{who} has {n} for each of {of}'s."),
}
_WEATHER = ("It is hot.", "It rains.", "It is late.")
_AGES = ("{who} is {n}.", "{who} is {n} older than {of}.")


@dataclasses.dataclass(frozen=True)
class _Tale:
    names: tuple[str, ...]
    start: int
    chain: tuple[tuple[str, int], ...]  # operation and number, of the second name and those after


@dataclasses.dataclass(frozen=True)
class TaleSource(ArithmeticSource):
    """Instances of the task: item `i` is a function of (seed, split, i) and the options.

    Attributes:
      repairs: probability that a step of the reference slips and is repaired at once.
      others: as in `ArithmeticSource`.

    Raises:
      ValueError: names the option that is out of range.
    """

    STYLES = STYLES
    LIMIT = 12
    SHARES = ("misconception_rate", "repairs")

    style: str = "names"
    repairs: float = 0.0

    def __getitem__(self, index: int) -> Example:
        self._check(index)
        rng = random.Random(f"tale/{self.split}/{self.seed}/{index}")
        tale, problem = self._draw(rng)
        style = rng.choice(STYLES[:2] if self.style == "both" else (self.style,))
        wrong = self._wrong_at(index)
        answer = tale.start
        for operation, n in tale.chain:
            answer = apply(answer, operation, n)
        return Example(
            id=f"tale/{self.split}/{self.seed}/{index}",
            problem=problem,
            reference=self._solve(tale, style, wrong, rng),
            answer=str(answer),
            source=f"tale/{self.split}",
        )

    def _draw(self, rng: random.Random) -> tuple[_Tale, str]:
        operations = tuple(OPERATIONS)
        while True:
            steps = rng.randint(*self.steps)
            names = tuple(rng.sample(NAMES, steps + 1))
            chain = tuple((rng.choice(operations), rng.choice(OPERANDS)) for _ in range(steps))
            tale = _Tale(names, rng.randrange(10), chain)
            problem = _tell(tale, rng)
            if hash_bucket(problem) in HASH_BUCKETS[self.split]:
                return tale, problem

    def _solve(self, tale: _Tale, style: str, wrong: dict[Fact, int], rng: random.Random) -> str:
        if style == "plan":
            plan = ", ".join(f"{operation} {n}" for operation, n in tale.chain)
            texts = [f"From {tale.start}: {plan}.\n\n"]
        else:
            texts = [f"{tale.names[0]}: given, {tale.names[0]} {tale.start}.\n\n"]
        value = tale.start
        for of, who, (operation, n) in zip(tale.names, tale.names[1:], tale.chain, strict=False):
            sum_ = f"{value} {operation} {n}"
            begin = f"So {sum_} is" if style == "plan" else f"{who}: {of} {sum_}, {who}"
            fact = (value, operation, n)
            slips = fact in wrong and rng.random() < self.misconception_rate
            value = wrong[fact] if slips else apply(*fact)
            if rng.random() < self.repairs:
                slip = (value + rng.randint(1, 9)) % 10
                texts.append(f"{begin} {slip}.\n\n{REVISION}")
            texts.append(f"{begin} {value}.\n\n")
        return "".join(texts) + f"\\boxed{{{value}}}"


def _tell(tale: _Tale, rng: random.Random) -> str:
    """The sentences, with one to three that do not matter anywhere among them, and the question."""
    names = tale.names
    sentences = [GIVEN.format(who=names[0], n=tale.start)]
    for of, who, (operation, n) in zip(names, names[1:], tale.chain, strict=False):
        sentences.append(rng.choice(PHRASES[operation]).format(who=who, n=n, of=of))
    for _ in range(rng.randint(1, 3)):
        who, of = rng.sample(names, 2)
        idle = rng.choice((rng.choice(_WEATHER), rng.choice(_AGES)))
        idle = idle.format(who=who, n=rng.choice(OPERANDS), of=of)
        sentences.insert(rng.randint(0, len(sentences)), idle)
    return "\n".join([TITLE, *sentences, f"What has {names[-1]}?"])
