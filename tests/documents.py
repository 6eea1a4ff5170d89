"""README and docs as the tests read them: links, anchors, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(p.relative_to(ROOT) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def links(page: Path) -> set[str]:
    """Targets of the page's links and pictures that are not on the web."""
    text = re.sub(r"`[^`]*`(?!\])", "", without_code(read(page)))
    return {t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("http")}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", without_code(read(page)), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def commands(page: Path) -> list[list[str]]:
    """Every `python -m ...` that the page shows, in a block or in a line, as a list of arguments."""
    text = read(page)
    lines: list[str] = []
    for language, block in _FENCE.findall(text):
        if language in ("", "bash", "sh", "console"):
            joined = re.sub(r"\\\n\s*", " ", block)
            lines += [part for line in joined.splitlines() for part in line.split("&&")]
    lines += re.findall(r"`(python -m [^`]+)`", without_code(text))
    found = []
    for line in lines:
        # A # inside of a word or a quotation is none that begins a comment.
        arguments = shlex.split(line, comments=True) if "python -m" in line else []
        while arguments and re.fullmatch(r"\w+=.*", arguments[0]):  # of the environment
            arguments.pop(0)
        if arguments[:2] == ["python", "-m"] and arguments not in found:
            found.append(arguments)
    return found
