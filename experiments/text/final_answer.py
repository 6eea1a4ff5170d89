r"""Where a text gives its final answer: the one reader of responses and of worked solutions.

A box decides (`experiments.text.boxes`). Without one, what counts is what is marked as the answer:
`<answer>42</answer>`, `#### 42`, "The answer is 42.", "**Final Answer:** 42", "A: 42", or a last
line that is nothing but the answer. Flexible reading falls back on the last number, as the filter
`flexible-extract` of lm-evaluation-harness does.
"""

from __future__ import annotations

import re

from experiments.text.boxes import boxed_answer, find_boxes

BOXED, FLEXIBLE = "boxed", "flexible"
MODES = (BOXED, FLEXIBLE)
# How much of the end of a text without a box is searched.
TAIL_CHARACTERS = 2_000

_THINKING = r"(?:think|thinking|thought|reasoning)"
_OPENED = re.compile(rf"<{_THINKING}>|\[THINK\]", re.IGNORECASE)
_CLOSED = re.compile(rf"</{_THINKING}>|\[/THINK\]", re.IGNORECASE)
_TAGGED = re.compile(r"<((?:final[_ ]?)?answer)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_TAG_OPENED = re.compile(r"<(?:final[_ ]?)?answer>", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)

_MARKUP = r"[*_`#>\s]*"
_WORD = re.compile(r"(?<![</_])\b(?:answers?|ans)\b", re.IGNORECASE)
_LINK = re.compile(
    rf"{_MARKUP}(?:,\s*[a-z]+,|(?:to|for|of)\b[^.:=\n]{{1,100}}?\s"
    rf"|\([^()\n]{{1,40}}\)\s*)?{_MARKUP}"
    r"(?:(?:is|are|equals|becomes|(?:would|must|should|will|can only)\s+be)\b\s*:?|:|=|(?=\n))",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[*_`#>\s:=]|\b(?:thus|therefore|hence|then|so|simply|just|indeed|exactly|approximately"
    r"|about|clearly|again|equal\s+to|given\s+by)\b,?)*",
    re.IGNORECASE,
)
_SAID_BEFORE = re.compile(
    r"(?:^|[\s*])(\S{1,60}?)[*]{0,3}\s+is\s+(?:the|our|my)\s+(?:final\s+|correct\s+)?answer\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?:A|[A-Za-z][A-Za-z' ]{0,40})[*_]*\s*[:=][*_]*\s*(?=\S)")
_ANSWER_LABEL = re.compile(r"^[*_#>\s]*A[*_]*\s*:[*_]*[ \t]*(\S.*)$", re.MULTILINE)
# A formula, and others right behind it: "$3$ and $4$".
_FORMULA = r"(?:\$\$[^$]+\$\$|\$(?:\\\$|[^$\n])+\$|\\\((?:(?!\\\)).)+\\\)|\\\[(?:(?!\\\]).)+\\\])"
_FORMULAS = re.compile(rf"{_FORMULA}(?:\s*(?:,\s*and|,\s*or|and|or|,|;)\s*{_FORMULA})*", re.DOTALL)
_MONEY = re.compile(r"\$\s*\d[\d,.]*(?:\s+[A-Za-z]|[.,]?\s*$|[.,]\s)")
_SENTENCE_END = re.compile(
    r"(?<!\\)[.!?](?=[\s\"'*)]|$)|\n|(?<!\\);\s|"
    r",?\s+(?:since|because|as|which|where|so|but|not|rather|instead"
    r"|when|if|while|with)\b|\s+[-\u2013\u2014]\s+[A-Za-z]{2}"
    r"|\s\(\s*[A-Za-z]{3}|\s\((?:i\.e|or|since)",
    re.IGNORECASE,
)
# Prose with one number says that number, unless it says something about it.
_HEDGED = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|either|or|between|than|least|most|over|under|above|below"
    r"|except|unless|wrong|unknown|half|twice|double|times|plus|minus)\b|n't\b|n\u2019t\b",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    r"(?:(?<![\w)\]}.,])[-\u2212]\s?)?(?:\\?[$\u20ac\u00a3]\s?)?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:/\d+(?![\d.]))?"
)
_LATEX_NUMBER = re.compile(r"[-\u2212]?\s?\\[dt]?frac\s*\{[-\u2212]?\d+\}\s*\{\d+\}")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_FUNCTIONS = re.compile(r"\b(?:sqrt|sin|cos|tan|ln|log|exp|pi)\b")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_VALUE = re.compile(
    r"[-+\u2212]?\s?(?:\\?[$\u20ac\u00a3]\s?)?\d[\d,.]*(?:/\d+)?\s?%?(?:\s?[^\W\d_]+\.?){0,3}"
)
_OPERATOR = re.compile(r"[*\u00d7\u00f7+]|\\times|\\cdot|\\div|\d\s*-\s*\d")
_ARITHMETIC = re.compile(r"(?:[\d\s.,*/()+\u00d7\u00f7-]|\\times|\\cdot|\\div)+")
_RULE = re.compile(r"[-=*_~`\s]*")
_HOPE = re.compile(r"I hope (?:it|this) is correct\W*$", re.IGNORECASE)


def final_text(response: str) -> str:
    """The response without its thinking; empty where the thinking never ends."""
    closed = [match.end() for match in _CLOSED.finditer(response)]
    rest = response[closed[-1] :] if closed else response
    opened = _OPENED.search(rest)
    if opened is None:
        return rest
    return rest[: opened.start()] if closed else ""


def find_answer(text: str, mode: str = BOXED) -> str | None:
    r"""The final answer of a text, as it stands there; None where it gives none.

    Args:
      text: without thinking: see `final_text`.
      mode: `boxed`, or `flexible`, which falls back on the last number of the text.

    Raises:
      ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"answer={mode!r} is none of {', '.join(MODES)}.")
    if find_boxes(text):
        return boxed_answer(text)  # a box that is cut off is not replaced by something before it
    tail = _HOPE.sub("", text[-TAIL_CHARACTERS:].rstrip())
    opened = [match.start() for match in _TAG_OPENED.finditer(tail)]
    tagged = list(_TAGGED.finditer(tail))
    if opened and not (tagged and tagged[-1].start() >= opened[-1]):
        return None  # cut off inside the tag
    marked = [(m.end(), _inside(m[2])) for m in tagged[-1:]]
    marked += [(m.start(), _line(m[1])) for m in list(_HASHES.finditer(tail))[-1:]]
    marked += [(m.start(), _stated(m[1])) for m in list(_ANSWER_LABEL.finditer(tail))[-1:]]
    marked += _said(tail)
    said = [(place, answer) for place, answer in marked if answer]
    found = max(said)[1] if said else _alone(tail)
    if mode == FLEXIBLE and (found is None or not any(c.isdigit() for c in found)):
        return _last_number(text) or found
    return found


def _inside(content: str) -> str | None:
    """The answer inside a tag: all of it, or what prose there says."""
    content = content.strip()
    if "\n" in content or len(content.split()) > 4 or _WORD.search(content):
        return find_answer(content) or content
    return content.strip("*` ")


def _line(text: str) -> str | None:
    """What a line marked with hashes gives; nothing where it is a heading."""
    text = text.strip().strip("*` ")
    if not any(c.isdigit() for c in text) and len(text.split()) > 2 and _has_prose(text):
        return None
    if _WORD.search(text) or re.match(r"(?i)step\b|part\b|case\b", text):
        return None
    return text


def _said(tail: str) -> list[tuple[int, str | None]]:
    """Places where the answer is said, and what is said there."""
    found: list[tuple[int, str | None]] = []
    for word in _WORD.finditer(tail):
        link = _LINK.match(tail, word.end())
        if link:
            start = _FILLER.match(tail, link.end())
            found.append((word.start(), _stated(tail[start.end() if start else link.end() :])))
    for match in _SAID_BEFORE.finditer(tail):
        if any(c.isdigit() for c in match[1]):
            found.append((match.start(), match[1].strip("*_`,")))
    return found


def _stated(rest: str) -> str | None:
    """The answer with which `rest` begins."""
    rest = rest.lstrip("*_`\"'\u201c \t\n")
    formulas = _FORMULAS.match(rest)
    if formulas and not _MONEY.match(rest):
        return formulas[0]
    said = rest[: _end(rest)].strip("*_`\"'\u201d, \t")
    if not said:
        return None
    words = _LETTERS.findall(_COMMANDS.sub("", said))
    if _HEDGED.search(said) and words and not re.match(r"[-\u2212$\\(\d]", said):
        return None
    formula = re.search(_FORMULA, said, re.DOTALL)
    if formula and not _MONEY.match(formula[0]) and not re.match(r"[-\u2212\d\\(]", said):
        return formula[0]
    numbers = [m[0] for m in _NUMBERS.finditer(said)]
    if len(numbers) == 1 and words and not re.match(r"[-\u2212$\u20ac\u00a3\\(\[{\d]", said):
        plain = len(said.split()) > 2 and "\\" not in said and "=" not in said
        return numbers[0] if plain else said
    return said or None


def _end(rest: str) -> int:
    """Where the sentence ends, or what it says about the answer begins; not inside of braces."""
    for match in _SENTENCE_END.finditer(rest):
        before = rest[: match.start()]
        factorial = match[0] == "!" and "\\" in before
        if before.count("{") <= before.count("}") and not factorial:
            return match.start()
    return len(rest)


def _alone(tail: str) -> str | None:
    """The last line, if it is nothing but an answer, or one behind a short label."""
    lines = [line.strip() for line in tail.splitlines() if not _RULE.fullmatch(line)]
    if not lines:
        return None
    line = lines[-1]
    display = re.search(rf"(?:^|\n)\s*({_FORMULA})[.\s]*$", tail, re.DOTALL)
    if display and not _MONEY.match(display[1]) and _single(display[1]):
        return display[1]
    line = re.sub(r"^(?:[-*>#\u2022]+\s+|\*\*|__)", "", line).strip("*_` ")
    label = _LABEL.match(line) if _single(line) or ":" in line else None
    for value in (line, line[label.end() :] if label else ""):
        value = value.strip("*_` ").removesuffix(".").strip("*_` ")
        if value and _single(value) and _is_value(value):
            return value
    return None


def _is_value(value: str) -> bool:
    """Whether a line is a number, perhaps with a unit, or a formula, and not prose."""
    if re.fullmatch(_FORMULA, value, re.DOTALL) or _VALUE.fullmatch(value):
        return True
    without = re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}", "", value)
    formula = any(c.isdigit() or c == "\\" for c in value) and len(value) <= 200
    return formula and not _has_prose(without)


def _has_prose(text: str) -> bool:
    return bool(_LETTERS.search(_FUNCTIONS.sub("", _COMMANDS.sub("", text))))


def _single(value: str) -> bool:
    """Whether a line gives a value, a letter and its value, or an equation; and no computation."""
    left, equals, right = value.strip("$\\()[] ").partition("=")
    if not equals:
        return True
    computed = _ARITHMETIC.fullmatch(right) and _OPERATOR.search(right)
    return "=" not in right and any(c.isalpha() for c in left) and not computed


def _last_number(text: str) -> str | None:
    tail = text[-TAIL_CHARACTERS:]
    numbers = [*_NUMBERS.finditer(tail), *_LATEX_NUMBER.finditer(tail)]
    return max(numbers, key=lambda m: m.end())[0] if numbers else None
