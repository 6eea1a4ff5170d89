"""Writes docs/api.md from the docstrings of what each room exports:

python docs/make_api.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
ROOMS = (
    "models",
    "models.text",
    "models.embedded",
    "distill",
    "motab",
    "atesd",
    "topd",
    "grpo",
    "mixtures",
    "family",
)
_LISTS = ("Args", "Attributes", "Raises")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):[ \t]*$", re.MULTILINE)
_NAMES = re.compile(r"(\**\w[\w.]*(?:, \**\w[\w.]*)*):\s")


def page() -> str:
    """The whole page."""
    parts = [
        "# API\n\nWhat each room exports, from its docstrings. `python docs/make_api.py` writes "
        "this page.\nA shape is part of a name: `tokens_BxT` is [B, T] ([letters](letters.md)). "
        "Losses and divergences are in nats.\n"
    ]
    for name in ROOMS:
        room = importlib.import_module(name)
        parts.append(f"## {name}\n\n{_text(room.__doc__ or '')}\n")
        parts += [_entry(room, exported) for exported in room.__all__ if exported != "__version__"]
    return "\n".join(parts)


def _entry(room: ModuleType, name: str) -> str:
    """Heading, signature, docstring and source of one exported name."""
    # A jitted function says what it is in the one that it wraps.
    thing = inspect.unwrap(getattr(room, name))
    lines = [f"### {room.__name__}.{name}\n"]
    if inspect.isclass(thing) or inspect.isfunction(thing):
        lines.append(f"```python\n{_signature(thing, name)}\n```\n")
    if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
        lines.append(_text(inspect.getdoc(thing) or "") + "\n")
        file = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT).as_posix()
        lines.append(f"Source: [{file}](../{file})\n")
    elif isinstance(thing, Path):  # where the project lies here is nobody's concern
        lines.append(f"`{thing.relative_to(ROOT).as_posix()}`, beside the code.\n")
    elif isinstance(thing, dict):  # what functions are called in memory says nothing
        lines.append("A table of " + ", ".join(f"`{key!r}`" for key in thing) + ".\n")
    else:
        lines.append(f"`{thing!r}`\n")
    return "\n".join(lines)


def _signature(thing: Any, name: str) -> str:
    """As the source has it: the function's head, or a class's fields with their defaults."""
    node = _definition(thing)
    if isinstance(node, ast.ClassDef):
        fields = [_one(x.target, x.annotation, x.value) for x in node.body if _is_field(x)]
        return "\n".join([f"class {name}:", *(f"    {field}" for field in fields or ["..."])])
    assert isinstance(node, ast.FunctionDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    like = getattr(thing, "arguments_of", None)  # a decorator says whose they are
    taken = node if like is None else _definition(like)
    assert isinstance(taken, ast.FunctionDef)
    arguments = _arguments(taken.args)
    head = f"{name}({', '.join(arguments)}){returns}"
    if len(head) <= 100:
        return head
    return "\n".join([f"{name}(", *(f"    {a}," for a in arguments), f"){returns}"])


def _definition(thing: Any) -> ast.stmt:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    return node


def _is_field(node: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    return isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)


def _arguments(args: ast.arguments) -> list[str]:
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    found = [_one(ast.Name(a.arg), a.annotation, d) for a, d in zip(plain, defaults, strict=True)]
    if args.vararg:
        found.append(f"*{ast.unparse(args.vararg)}")
    elif args.kwonlyargs:
        found.append("*")
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    found += [_one(ast.Name(a.arg), a.annotation, d) for a, d in pairs]
    return found + ([f"**{ast.unparse(args.kwarg)}"] if args.kwarg else [])


def _one(name: ast.expr, annotation: ast.expr | None, default: ast.expr | None) -> str:
    """`name: annotation = default`, as far as there are such."""
    typed = f": {ast.unparse(annotation)}" if annotation else ""
    equals = " = " if annotation else "="
    return ast.unparse(name) + typed + (equals + ast.unparse(default) if default else "")


def _text(doc: str) -> str:
    """A docstring as Markdown: its sections are lists, its examples are code."""
    lead, *sections = _SECTION.split(inspect.cleandoc(doc))
    parts = [_plain(lead)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        # What stands behind a section at the margin belongs to the docstring's text again.
        inside = "".join(re.findall(r"\A(?:[ \t].*\n?|\n)*", body)[:1])
        content = textwrap.dedent(inside.strip("\n"))
        if title.startswith("Example"):
            parts.append(_plain(content))
        else:
            items = re.split(r"\n(?=\S)", content) if title in _LISTS else [content]
            lines = [_named(" ".join(_escape(item).split())) for item in items if item]
            bullet = "* " if title in _LISTS else ""
            parts.append("\n".join([f"**{title}**\n", *(bullet + line for line in lines)]))
        parts += [_plain(body[len(inside) :])]
    return "\n\n".join(part for part in parts if part)


def _plain(text: str) -> str:
    """Paragraphs; those that show a Python session are code."""
    paragraphs = re.split(r"\n[ \t]*\n", textwrap.dedent(text).strip("\n"))
    shown = [f"```python\n{p}\n```" if p.startswith(">>> ") else _escape(p) for p in paragraphs]
    return "\n\n".join(shown)


def _named(item: str) -> str:
    """`a, b: what they are` with the names as code."""
    names = _NAMES.match(item)
    if not names:
        return item
    return ", ".join(f"`{n}`" for n in names[1].split(", ")) + item[names.end(1) :]


def _escape(text: str) -> str:
    """Angle brackets outside of code are no tags."""
    pieces = re.split(r"(`[^`]*`|^ {4}.*$)", text, flags=re.MULTILINE)
    return "".join(p if i % 2 else p.replace("<", "&lt;") for i, p in enumerate(pieces))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written.")
