r"""Whether a response's final answer is right: math-verify on the last `\boxed{}`.

Answers that are not decided by plain comparison go to a process of their own. Model output can ask
for `10^{10^{10}}`, and neither a thread nor a signal handler gets a grip on a computation inside
Python's integers; a process can be ended, whichever thread waits for it.
"""

from __future__ import annotations

import atexit
import functools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from experiments.tasks.example import Example

TIME_LIMIT_SECONDS = 5.0
# A final answer is short. Longer text is not looked at: parsing time grows faster than length.
MAX_ANSWER_CHARACTERS = 1_000
# How much of the end of a response without a box is searched for "the answer is".
_TAIL_CHARACTERS = 2_000
_BOXED = "\\boxed{"
_BRACES = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)
_TEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_TRAILING = re.compile(r"(?:\\[,;:! ]|[\s.*~])+$|\\$")
# "C", "(C)", "C.", "C) its text", "Option C".
_LETTER = re.compile(r"(?:(?:option|choice)\s+)?\(?([A-Z])(?:[).:](?:\s.*)?)?", re.DOTALL)
_SAID_LETTER = re.compile(
    r"\b(?i:answer)(?:\s+(?:is|choice|option|would|must|be))*\s*:?\s*(?:option\s+|choice\s+)?"
    r"\(?([A-Z])\b(?!')",
)
_NO_MARKUP = str.maketrans("", "", "*$_`")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


def grade(response: str, answer: str) -> bool:
    r"""Whether the final answer of `response` is mathematically equal to `answer`.

    The final answer is the last `\boxed{}` after `</think>`, or, without any, what math-verify finds
    behind the word "answer"; a response with neither is wrong, and so is one that takes
    more than `TIME_LIMIT_SECONDS` or `MAX_ANSWER_CHARACTERS`. Never raises; usable in any thread.
    """
    final = final_text(response)
    boxed = last_boxed(final)
    if boxed is not None:
        return _equal(_bare(boxed), answer.strip(), anchored=False)
    tail = final[-_TAIL_CHARACTERS:]
    return "answer" in tail.lower() and _equal(tail, answer.strip(), anchored=True)


def _bare(boxed: str) -> str:
    r"""Without what ends a phrase or a formula, and a `\text{}` around it all, if it has a number.

    math-verify reads none of "42.", "1,152\,", "**42**" and "\text{12 inches}" as numbers.
    """
    if len(boxed) > MAX_ANSWER_CHARACTERS:
        return boxed
    bare = _TRAILING.sub("", boxed).lstrip("* ")
    text = _TEX_TEXT.fullmatch(bare)
    return text[1] if text and any(c.isdigit() for c in text[1]) else bare


def grade_choice(response: str, answer: str, choices: Sequence[str]) -> bool:
    r"""Whether a response to a multiple choice settles on the letter `answer`.

    What counts is the last `\boxed{}` after `</think>`, as a letter, a letter and its text, or the
    text of a choice, which is compared as in `grade`; without any box, the last letter behind the
    word "answer". Two boxed letters are no answer.

    Args:
      choices: the texts of A, B, ...
    """
    final = final_text(response)
    boxed = last_boxed(final)
    if boxed is None:
        tail = final[-_TAIL_CHARACTERS:].translate(_NO_MARKUP)
        said = _SAID_LETTER.findall(tail)
        return bool(said) and said[-1].upper() == answer
    if len(boxed) > MAX_ANSWER_CHARACTERS:
        return False
    plain = _TEX_TEXT.sub(r"\1", boxed).strip(" .$*")
    letter = _LETTER.fullmatch(plain)
    if letter:
        return letter[1].upper() == answer
    right = ord(answer) - ord("A")
    equal = [i for i, choice in enumerate(choices) if _same_choice(boxed, choice)]
    return equal == [right]


def _same_choice(boxed: str, choice: str) -> bool:
    def folded(text: str) -> str:
        return " ".join(_TEX_TEXT.sub(r"\1", text).casefold().split()).strip(" .$")

    return folded(boxed) == folded(choice) or _equal(
        _bare(boxed), choice.strip(" .$"), anchored=False
    )


def verdict(response: str, example: Example) -> bool:
    """`grade`, or `grade_choice` where the example has choices."""
    if example.choices:
        return grade_choice(response, example.answer, example.choices)
    return grade(response, example.answer)


def final_text(response: str) -> str:
    """The response without its thinking; empty where the thinking never ends."""
    _, closed, rest = response.rpartition("</think>")
    if closed:
        return rest
    return "" if "<think>" in response else response


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{...}` of a text, braces balanced; else None."""
    open_braces: list[tuple[int, bool]] = []
    last, last_start = None, -1
    for match in _BRACES.finditer(text):
        token = match[0]
        if token in (_BOXED, "{"):
            open_braces.append((match.end(), token == _BOXED))
        elif token == "}" and open_braces:
            start, boxed = open_braces.pop()
            if boxed and start > last_start:
                last, last_start = text[start : match.start()].strip(), start
    return last


@functools.lru_cache(maxsize=100_000)
def _equal(prediction: str, answer: str, anchored: bool) -> bool:
    """`anchored`: the prediction is prose, whose answer is still to be found."""
    if not prediction or not answer:
        return False
    if not anchored:
        if prediction == answer:
            return True
        if _INTEGER.fullmatch(prediction) and _INTEGER.fullmatch(answer):
            return int(prediction) == int(answer)
    limit = _TAIL_CHARACTERS if anchored else MAX_ANSWER_CHARACTERS
    if len(prediction) > limit or len(answer) > MAX_ANSWER_CHARACTERS:
        return False
    return _WORKER.ask(prediction, answer, anchored)


class _Worker:
    """The grading process, started when first asked and again whenever it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, prediction: str, answer: str, anchored: bool) -> bool:
        request = json.dumps(
            {
                "prediction": prediction,
                "answer": answer,
                "anchored": anchored,
                "seconds": TIME_LIMIT_SECONDS,
            }
        )
        with self._lock:
            # The process ends itself, by the kernel's alarm, when a request takes too long; waiting
            # for its reply therefore always ends, with an empty line.
            reply = self._exchange(request)
            if not reply:
                self._stop()
            return reply == "1\n"

    def _exchange(self, request: str) -> str:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except BrokenPipeError:
            return ""

    def _start(self) -> None:
        # -P: the folder of this package, whose names shadow the standard library's, stays off the path.
        script = Path(__file__).with_name("grading_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            process_group=0,  # Ctrl-C is for the run, which still wants its verdicts
        )
        atexit.register(self._stop)

    def _stop(self) -> None:
        atexit.unregister(self._stop)
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_WORKER = _Worker()
