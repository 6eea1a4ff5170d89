"""Rooms: what may import what, how large a room may be, and that a loose file is a command."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("motab", "atesd", "topd", "grpo", "mixtures", "family")
# The rooms of `experiments`, floor by floor: imports go down, or to a neighbour on the same floor.
FLOORS = (
    ("text", "tasks"),
    ("config", "grading"),
    ("machine", "pair"),
    ("workdir", "checkpoints", "command"),
    ("data", "report"),
    ("rollouts",),
    ("methods", "evaluate"),
    ("train", "plan", "diagnose", "bench"),
    ("compare",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_FILES, MOST_LINES = 12, 400
PYTHON = sorted(
    path
    for room in ("models", "distill", *METHODS, "configs", "experiments")
    for path in (ROOT / room).rglob("*.py")
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The modules that a file imports, also inside of functions, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, str(node.module)


def may_import(room: str, other: str) -> bool:
    """Whether a file of one top-level room may import another."""
    allowed = {
        "models": (),
        "distill": ("models",),
        **dict.fromkeys(METHODS, ("models", "distill")),
        "configs": (),
        "experiments": ("models", "distill", *METHODS, "configs"),
    }
    return other == room or other in allowed[room]


def test_top_level_rooms_import_only_what_lies_below():
    rooms = ("models", "distill", *METHODS, "configs", "experiments")
    wrong = []
    for path in PYTHON:
        room = path.relative_to(ROOT).parts[0]
        for line, module in imports(path):
            other = module.partition(".")[0]
            if other in rooms and not may_import(room, other):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_rooms_of_experiments_import_only_downwards():
    wrong = []
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        room = path.relative_to(ROOT).parts[1]
        floor = len(FLOORS) if room.endswith(".py") else FLOOR[room]
        for line, module in imports(path):
            parts = module.split(".")
            if parts[0] != "experiments" or len(parts) == 1:
                continue
            other = parts[1]
            # A command may be imported by nobody.
            if FLOOR.get(other, len(FLOORS)) > floor or other not in FLOOR:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor():
    rooms = {p.name for p in (ROOT / "experiments").iterdir() if (p / "__init__.py").is_file()}
    assert rooms <= set(FLOOR), f"say on which floor {rooms - set(FLOOR)} lies"


def test_a_loose_file_of_experiments_is_a_command():
    loose = [p for p in (ROOT / "experiments").glob("*.py") if p.name != "__init__.py"]
    assert loose
    for path in loose:
        assert 'if __name__ == "__main__":' in path.read_text(), f"{path.name}: move it to a room"


def test_rooms_are_small_enough_to_look_over():
    for room in {path.parent for path in PYTHON}:
        # `configs` is a list of things to run, and grows with the methods.
        if room.name != "configs":
            found = [p.name for p in room.glob("*.py") if p.name != "__init__.py"]
            assert len(found) <= MOST_FILES, f"{room.relative_to(ROOT)} has {len(found)} files"


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_no_file_takes_the_name_of_a_module_of_the_standard_library():
    """`statistics.py` beside a script shadows the standard library's."""
    names = {p.stem for p in (ROOT / "experiments").rglob("*.py")} - {"__init__", "__main__"}
    shared = names & set(sys.stdlib_module_names)
    assert not shared, f"{sorted(shared)} are modules of the standard library"


def test_files_of_a_kind_have_names_of_their_own():
    """Two files called `plan` cannot be told apart in an editor's tabs."""
    by_name: dict[str, list[str]] = {}
    for path in (ROOT / "experiments").rglob("*.py"):
        if not re.fullmatch(r"__\w+__", path.stem):
            by_name.setdefault(path.stem, []).append(str(path.relative_to(ROOT)))
    for name in ("plan", "report", "statistics", "table"):
        assert len(by_name.get(name, [])) <= 1, by_name[name]


def test_lines_for_people_are_printed_as_they_are():
    """Brackets in names and paths are no markup: what is not a table goes through `say`."""
    wrong = []
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            on_console = node.func.attr == "print" and "onsole" in ast.unparse(node.func.value)
            if on_console and isinstance(node.args[0], ast.JoinedStr | ast.Constant | ast.Name):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, f"experiments.command.say.say prints these: {wrong}"
