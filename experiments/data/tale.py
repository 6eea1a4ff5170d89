r"""Tales of who has how many: the chain task's arithmetic in sentences, with several ways to solve it.

    Bo has 3 more than Al. It is hot. Cy has 4 for each of Bo's. Al has 7. Di lacks 2 of what Al has. Cy is 9. What has Cy?

All counts are modulo 10. Sentences come in any order, and some matter to nobody: of the weather, of ages, of
people who come to have something that the question does not depend on. It is solved in one of two styles,

    plan     For Cy by Bo by Al.\n\nSo Al 7.\n\nSo Bo: Al 7+3, Bo 0.\n\n ... \boxed{0}    who matters, planned
    sweep    So Al 7.\n\nSo Di: Al 7-2, Di 5.\n\nSo Bo: Al 7+3, Bo 0.\n\n ... \boxed{0}   everybody, in any order

A solver may hold misconceptions, as in `experiments.data.chain`: one-step facts that it gets wrong. It may also repair its
slips: after a wrong step it writes `However,`, and the same step again, right.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator

from experiments.data.chain import (
    OPERANDS,
    OPERATIONS,
    SPLITS,
    Fact,
    apply,
    draw_misconceptions,
    hash_bucket,
)
from experiments.data.example import Example

STYLES = ("plan", "sweep", "both")
REVISION = "However,\n\n"
_TITLE = "Tale:"
# No two begin with the same letter.
NAMES = (
    "Al", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lou",
    "Max", "Ned", "Ola", "Pat", "Ray", "Sue", "Tim", "Una", "Vic", "Wes", "Yan", "Zoe",
)  # fmt: skip
_PHRASES = {
    "+": ("{who} has {n} more than {of}.", "{who} has {n} and what {of} has."),
    "-": ("{who} has {n} less than {of}.", "{who} lacks {n} of what {of} has."),
    "*": ("{who} has {n} times what {of} has.", "{who} has {n} for each of {of}'s."),
}
# How a sentence says that one has something of another's: operation, pattern.
_READ = tuple(
    (operation, re.compile(phrase.format(who=r"(?P<who>\w+)", n=r"(?P<n>\d)", of=r"(?P<of>\w+)")))
    for operation, phrases in _PHRASES.items()
    for phrase in (p.replace(".", r"\.") for p in phrases)
)
_GIVEN = re.compile(r"(\w+) has (\d)\.")
_WEATHER = ("It is hot.", "It rains.", "It is late.")
_BUCKETS = {"validation": (0,), "test": (1,), "long": (1,), "train": tuple(range(2, 10))}
_STEPS = {"train": (2, 4), "validation": (2, 4), "test": (2, 4), "long": (5, 7)}
_SIZES = {"train": 1_000_000, "validation": 1_000, "test": 1_000, "long": 1_000}
_MAX_STEPS = 12


@dataclasses.dataclass(frozen=True)
class _Person:
    name: str
    of: int  # index of the person it depends on; -1: it has `n` from the start
    operation: str
    n: int


@dataclasses.dataclass(frozen=True)
class TaleSource:
    """Instances of the task: item `i` is a function of (seed, split, i) and the options.

    The question depends on seed, split, index and the step range alone.

    Attributes:
      split: `train`, `validation`, `test` (disjoint whatever the seeds) or `long` (more steps than trained
        on; also apart from training).
      size: number of instances; 0 takes a million for training and a thousand otherwise.
      seed: another seed gives other problems.
      min_steps, max_steps: operations that the answer depends on, at most 12; 0 takes 2 to 4, and 5 to
        7 for `long`.
      style: of the reference: `plan`, `sweep`, or `both`, which draws one of them.
      misconceptions, misconception_rate, misconception_seed, misconceptions_from: as in `ChainSource`.
      repairs: probability that a step of the reference slips and is repaired at once.

    Raises:
      ValueError: names the option that is out of range.
    """

    split: str
    size: int = 0
    seed: int = 0
    min_steps: int = 0
    max_steps: int = 0
    style: str = "sweep"
    misconceptions: int = 0
    misconception_rate: float = 0.75
    misconception_seed: int = 0
    misconceptions_from: int = 0
    repairs: float = 0.0

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} is not one of {SPLITS}.")
        if self.style not in STYLES:
            raise ValueError(f"style={self.style!r} is not one of {STYLES}.")
        if self.size < 0:
            raise ValueError(f"size={self.size} must be 0 (all) or more.")
        low, high = self.steps
        if not 1 <= low <= high <= _MAX_STEPS:
            raise ValueError(
                f"min_steps={low} and max_steps={high} must satisfy 1 <= min <= max <= {_MAX_STEPS}."
            )
        for name in ("misconception_rate", "repairs"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..1.")
        if not 0 <= self.misconceptions <= 240:
            raise ValueError(f"misconceptions={self.misconceptions} must lie in 0..240.")
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

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in a tale source of {len(self)} instances.")
        rng = random.Random(f"tale/{self.split}/{self.seed}/{index}")
        people, chain, problem = self._draw(rng)
        style = rng.choice(STYLES[:2] if self.style == "both" else (self.style,))
        wrong = self._wrong if index >= self.misconceptions_from else {}  # type: ignore[attr-defined]
        value = people[0].n
        for i in chain[1:]:
            value = apply(value, people[i].operation, people[i].n)
        return Example(
            id=f"tale/{self.split}/{self.seed}/{index}",
            problem=problem,
            reference=self._solve(people, chain, style, wrong, rng),
            answer=str(value),
            source=f"tale/{self.split}",
        )

    def _draw(self, rng: random.Random) -> tuple[list[_Person], list[int], str]:
        """The people, in an order in which they can be solved; the chain's indices; the text."""
        while True:
            steps = rng.randint(*self.steps)
            strangers = rng.randint(1, 2)
            names = rng.sample(NAMES, steps + 1 + strangers)
            people, chain = [_Person(names[0], -1, "", rng.randrange(10))], [0]
            # Who joins the chain and who does not, in a random order.
            joins = [True] * steps + [False] * strangers
            rng.shuffle(joins)
            for name, joined in zip(names[1:], joins, strict=True):
                of = chain[-1] if joined else rng.randrange(len(people))
                people.append(
                    _Person(name, of, rng.choice(tuple(OPERATIONS)), rng.choice(OPERANDS))
                )
                if joined:
                    chain.append(len(people) - 1)
            problem = _tell(people, chain[-1], rng)
            if hash_bucket(problem) in _BUCKETS[self.split]:
                return people, chain, problem

    def _solve(
        self,
        people: list[_Person],
        chain: list[int],
        style: str,
        wrong: dict[Fact, int],
        rng: random.Random,
    ) -> str:
        texts, values = [], {0: people[0].n}
        if style == "plan":
            texts.append("For " + " by ".join(people[i].name for i in reversed(chain)) + ".\n\n")
        texts.append(f"So {people[0].name} {people[0].n}.\n\n")
        left = list(range(1, len(people))) if style == "sweep" else chain[1:]
        while left:
            # A sweep takes whoever can be solved, in any order.
            i = rng.choice([i for i in left if people[i].of in values])
            left.remove(i)
            before, operation, n = values[people[i].of], people[i].operation, people[i].n
            fact, right = (before, operation, n), apply(before, operation, n)
            slips = fact in wrong and rng.random() < self.misconception_rate
            values[i] = wrong[fact] if slips else right
            who, of = people[i].name, people[people[i].of].name
            start = f"So {who}: {of} {before}{operation}{n}, {who} "
            if rng.random() < self.repairs:
                slip = (values[i] + rng.randint(1, 9)) % 10
                texts.append(f"{start}{slip}.\n\n{REVISION}")
            texts.append(f"{start}{values[i]}.\n\n")
        return "".join(texts) + f"\\boxed{{{values[chain[-1]]}}}"


def true_steps(problem: str) -> dict[str, tuple[str, int, str, int, int]] | None:
    """What a problem makes of its people, by name, but for the one who has something from the start.

    Returns:
      of whom, what that one has, operation, number, and what it comes to; None where the text is no
      tale.
    """
    if not problem.startswith(_TITLE):
        return None
    have: dict[str, int] = {}
    rules: dict[str, tuple[str, str, int]] = {}
    for sentence in re.findall(r"\w[^.?]*[.?]", problem.removeprefix(_TITLE)):
        if match := _GIVEN.fullmatch(sentence):
            have[match[1]] = int(match[2])
        for operation, pattern in _READ:
            if match := pattern.fullmatch(sentence):
                rules[match["who"]] = match["of"], operation, int(match["n"])
    steps: dict[str, tuple[str, int, str, int, int]] = {}
    while ready := [who for who in rules if who not in have and rules[who][0] in have]:
        for who in ready:
            of, operation, n = rules[who]
            have[who] = apply(have[of], operation, n)
            steps[who] = of, have[of], operation, n, have[who]
    return steps


def _tell(people: list[_Person], asked: int, rng: random.Random) -> str:
    """The sentences, shuffled, and the question."""
    sentences = [f"{people[0].name} has {people[0].n}."]
    for person in people[1:]:
        phrase = rng.choice(_PHRASES[person.operation])
        sentences.append(phrase.format(who=person.name, n=person.n, of=people[person.of].name))
    if rng.random() < 0.5:
        sentences.append(rng.choice(_WEATHER))
    if rng.random() < 0.5:
        sentences.append(f"{rng.choice(people).name} is {rng.choice(OPERANDS)}.")
    rng.shuffle(sentences)
    return " ".join([_TITLE, *sentences, f"What has {people[asked].name}?"])
