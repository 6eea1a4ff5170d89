"""Whether a response's final answer is right."""

from __future__ import annotations

import re

_BOXED = "\\boxed{"
_BRACES = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{...}` of a text, braces balanced; else None."""
    open_braces: list[tuple[int, bool]] = []
    last, last_start = None, -1
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == _BOXED or token == "{":
            open_braces.append((match.end(), token == _BOXED))
        elif token == "}" and open_braces:
            start, boxed = open_braces.pop()
            if boxed and start > last_start:
                last, last_start = text[start : match.start()].strip(), start
    return last
