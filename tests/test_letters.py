"""Letters of shapes: the legend has all that the core's names use, and array parameters have shapes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOMS = ("models", "distill", "motab", "atesd", "topd", "grpo", "mixtures", "family")
SHAPE = re.compile(r"_((?:[A-Z][a-z]?|1)(?:x(?:[A-Z][a-z]?|1))*)$")
ROOT = Path(__file__).parent.parent


def legend() -> dict[str, set[str]]:
    """Letters by the room they belong to; "all" for those of every room."""
    rows = re.findall(
        r"^\| `(\w+)` \| ([\w, ]+) \|", (ROOT / "docs" / "letters.md").read_text(), re.MULTILINE
    )
    found: dict[str, set[str]] = {}
    for letter, rooms in rows:
        for room in rooms.split(", "):
            found.setdefault(room, set()).add(letter)
    return found


def trees():
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield room, path, ast.parse(path.read_text(encoding="utf-8"))


def used() -> dict[tuple[str, str], str]:
    """By letter and room, a name that has it."""
    found = {}
    for room, path, tree in trees():
        for node in ast.walk(tree):
            for field in ("id", "arg", "attr"):
                shape = SHAPE.search(str(getattr(node, field, "")))
                for letter in shape[1].split("x") if shape else ():
                    found.setdefault((letter, room), f"{path.name}: {getattr(node, field)}")
    return found


def test_the_legend_has_every_letter_and_no_other():
    known, names = legend(), used()
    missing = {
        key: where
        for key, where in names.items()
        if key[0] not in known["all"] | known.get(key[1], set()) | {"1"}
    }
    assert not missing
    letters = {letter for letter, _ in names}
    idle = {room: found - letters for room, found in known.items() if found - letters}
    assert not idle


def test_letters_of_all_rooms_mean_nothing_else_in_one():
    known = legend()
    for room in ROOMS:
        assert not known["all"] & known.get(room, set()), room


def is_array(annotation: ast.expr | None) -> bool:
    text = ast.unparse(annotation) if annotation else ""
    return "jax.Array" in text and not re.search("Callable|tuple|dict|int|float|bool", text)


def test_array_parameters_of_public_functions_have_a_shape_in_name_or_docstring():
    missing = []
    for _, path, tree in trees():
        docs = ast.get_docstring(tree) or ""
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            text = docs + (ast.get_docstring(function) or "")
            for argument in (*function.args.args, *function.args.kwonlyargs):
                name = argument.arg
                if not is_array(argument.annotation) or name == "key" or SHAPE.search(name):
                    continue
                if not re.search(rf"\b{name}\b[^.]*?\[[^\]]*\]", text):
                    missing.append(f"{path.relative_to(ROOT)}:{function.lineno} {name}")
    assert not missing, "\n".join(missing)
