"""Lines of Python by kind: `python -m tests.count_lines models distill motab atesd topd`.

A comment's lines are those that hold nothing else; code is what is left without imports,
docstrings, comments and blank lines.
"""

from __future__ import annotations

import ast
import collections
import io
import pathlib
import sys
import tokenize

KINDS = ("code", "imports", "docstrings", "comments", "blanks")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count(source: str) -> collections.Counter[str]:
    """How many lines of `source` are of which of `KINDS`."""
    kinds = dict.fromkeys(range(1, len(source.splitlines()) + 1), "code")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            kinds.update(dict.fromkeys(_lines(node), "imports"))
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            kinds.update(dict.fromkeys(_lines(node.body[0]), "docstrings"))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            kinds[token.start[0]] = "comments"
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.strip() and kinds[number] == "code":
            kinds[number] = "blanks"
    return collections.Counter(kinds.values())


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def main(rooms: list[str]) -> None:
    """Prints a line for every room, and one for all of them."""
    total: collections.Counter[str] = collections.Counter()
    print(f"{'':12}" + "".join(f"{kind:>12}" for kind in KINDS))
    for room in rooms:
        files = sorted(pathlib.Path(room).rglob("*.py"))
        here = sum((count(f.read_text(encoding="utf-8")) for f in files), collections.Counter())
        print(f"{room:12}" + "".join(f"{here[kind]:12,}" for kind in KINDS))
        total += here
    print(f"{'all':12}" + "".join(f"{total[kind]:12,}" for kind in KINDS))


if __name__ == "__main__":
    main(sys.argv[1:])
