"""GSM8K's worked answers, which end in `#### 42` and carry calculator notes `<<6*7=42>>`."""

from __future__ import annotations

import re

_NOTE = re.compile(r"<<[^<>\n]*>>")
MARK = "####"


def worked_answer(text: str) -> tuple[str, str] | None:
    """The solution without its notes, and the answer without commas, of a text in GSM8K's form.

    None where no `####` with something behind it begins the last line.
    """
    before, mark, answer = text.rstrip().rpartition(MARK)
    answer = answer.strip()
    if not mark or not answer or "\n" in answer:
        return None
    return _NOTE.sub("", before.removesuffix("\n")), answer.replace(",", "")
