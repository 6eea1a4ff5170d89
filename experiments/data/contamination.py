"""Whether a problem is, or copies, one of those that a model will be evaluated on."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Iterable, Iterator

from experiments.tasks.example import Example

# Words, numbers and operators, a factorial's mark among them; spaces, punctuation and TeX's braces
# and dollars do not matter.
_TOKEN = re.compile(r"\w+|[-+*/^=<>()|%]|(?<=\b\w)!|(?<=[\d)])!")
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3})")


def words(text: str) -> tuple[str, ...]:
    """A text's words, numbers and operators, without case: equal for what reads the same."""
    plain = _GROUPED_DIGITS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return tuple(_TOKEN.findall(plain))


class Contamination:
    """Problems to keep out.

    Args:
      examples: of the evaluation sets.
      ngram: words of a run of text.
      overlap: a problem is out where at least this share of an evaluation problem's n-grams, or of
        its own, is in the other one. Equal texts are out at any length. A single run in common says
        little: "where m and n are relatively prime positive integers. Find m + n." has 13 words.

    Raises:
      ValueError: `ngram` or `overlap` is out of range.
    """

    def __init__(self, examples: Iterable[Example], ngram: int, overlap: float):
        if ngram < 1:
            raise ValueError(f"filter.ngram={ngram} must be at least 1.")
        if not 0 < overlap <= 1:
            raise ValueError(f"filter.overlap={overlap} must be in (0, 1].")
        self._ngram, self._overlap = ngram, overlap
        self._whole: dict[tuple[str, ...], str] = {}
        self._holders: dict[tuple[str, ...], set[str]] = collections.defaultdict(set)
        self._sizes: dict[str, int] = {}
        for example in examples:
            text = words(example.problem)
            name = f"{example.source} {example.id}"
            self._whole.setdefault(text, name)
            grams = set(self._grams(text))
            self._sizes[name] = len(grams)
            for gram in grams:
                self._holders[gram].add(name)

    def find(self, problem: str) -> str | None:
        """The evaluation problem that this one is or copies; None if there is none."""
        text = words(problem)
        if text in self._whole:
            return self._whole[text]
        grams = set(self._grams(text))
        common = collections.Counter(
            name for gram in grams if gram in self._holders for name in self._holders[gram]
        )
        for name, count in common.most_common():
            if count >= self._overlap * min(self._sizes[name], len(grams)):
                return name
        return None

    def _grams(self, text: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for start in range(len(text) - self._ngram + 1):
            yield text[start : start + self._ngram]
