"""Every command: its help, and that it refuses what it does not know."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command.command import command
from experiments.command.flags import flags_of
from experiments.machine.exit_codes import Interrupted
from models.checks import Count

ROOT = Path(__file__).resolve().parents[3]


def is_started(path: Path) -> bool:
    """Whether a file calls `main` when it is run."""
    return "sys.exit(main())" in path.read_text()


def modules() -> list[str]:
    """Every command: loose files, rooms that can be run, and files in rooms that can."""
    found = []
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        loose = path.parent.name == "experiments" and path.name != "__init__.py"
        if loose or path.name == "__main__.py" or is_started(path):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


MODULES = modules()
# What a command has to be given before anything else is looked at: files that are there.
POSITIONAL = {"experiments.show": ["WORKDIR"]}


def run(module: str, *arguments: str) -> int:
    return importlib.import_module(module).main(list(arguments))


def name_of(module: str) -> str:
    return f"python -m {module.removesuffix('.__main__')}"


def test_commands_are_found():
    assert len(MODULES) == 21, MODULES


@pytest.mark.parametrize("module", MODULES)
def test_help_says_every_flag_and_ends_well(module, capsys):
    assert run(module, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {name_of(module)} ")
    settings = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert ast.get_docstring(settings).partition("\n")[0] in text


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_flag_is_named(module, capsys):
    for flag in ("--nonsense=1", "--nonsense"):
        assert run(module, *POSITIONAL.get(module, []), flag) == 2
        out, error = capsys.readouterr()
        assert not out and error.count("\n") == 1
        assert error.startswith(f"{name_of(module)}: {flag}: there is no such flag")


@pytest.mark.parametrize("module", MODULES)
def test_a_stray_argument_is_named(module, capsys):
    many = ("experiments.report.__main__", "experiments.compare.collect")  # each is a path
    for stray in ("config.steps=3", "out=x"):
        code = run(module, *POSITIONAL.get(module, []), stray)
        error = capsys.readouterr().err
        assert stray in error and "Traceback" not in error
        assert code == (1 if module in many and "did you mean" not in error else 2)


@pytest.mark.parametrize("module", ["experiments.run", "experiments.synthesize"])
def test_a_field_without_dashes_is_asked_about(module, capsys):
    assert run(module, "--config", "configs/motab.py", "config.steps=3") == 2
    assert "did you mean --config.steps=3?" in capsys.readouterr().err


def test_a_config_is_shown_with_its_meanings(capsys):
    arguments = ("--config", "configs/motab.py:smoke", "--config.steps=7", "--print_config")
    assert run("experiments.run", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("steps = 7  # ") for line in lines)
    assert any(line.startswith("motab.gamma_0 = ") and "  # " in line for line in lines)
    assert run("experiments.run", *arguments, "--config.steps=0") == 1
    assert "steps=0" in capsys.readouterr().err


def nothing() -> type:
    @dataclasses.dataclass(frozen=True)
    class Settings:
        pass

    return Settings


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("n=0"), 1, "ValueError: n=0\n"),
        (FileNotFoundError(2, "No such file", "a[b]"), 1, "FileNotFoundError: [Errno 2] No such file: 'a[b]'\n"),
        (ModuleNotFoundError("No module named 'x'"), 1, "ModuleNotFoundError: No module named 'x'\n"),
        (RuntimeError("no memory"), 1, "RuntimeError: no memory\n"),
        (Interrupted("saved at step 3"), 75, "saved at step 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)  # fmt: skip
def test_what_a_command_raises_is_its_exit_code(error, code, said, capsys):
    def fails(_):
        raise error

    assert command("it", nothing(), fails, "")([]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_keeps_its_trace():
    def fails(_):
        raise KeyError("x")

    with pytest.raises(KeyError):
        command("it", nothing(), fails, "")([])


def test_a_code_that_is_returned_is_kept():
    assert command("it", nothing(), lambda _: 1, "")([]) == 1
    assert command("it", nothing(), lambda _: None, "")([]) == 0


CONFIG = ("experiments.run", "--config", "configs/motab.py")
UNREAD = [
    ("experiments.run", "--help"),
    (*CONFIG, "--print_config"),
    ("experiments.data", "--help"),
]


@pytest.mark.parametrize("arguments", UNREAD, ids=" ".join)
def test_output_that_nobody_reads_ends_a_command_quietly(arguments):
    """As `| head` does, once it has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""
    # argparse says nothing of help that cannot be written.
    assert done.returncode == 141 or (done.returncode == 0 and "--help" in arguments)


def test_another_broken_pipe_is_an_error(capsys):
    def fails(_):
        raise BrokenPipeError(32, "Broken pipe")  # of a tracker's connection, say

    assert command("it", nothing(), fails, "")([]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_meanings_come_from_attributes_where_there_is_no_flag():
    from experiments.data.__main__ import Settings

    flags = flags_of(Settings)
    assert flags["unique"].flag.meaning == "of problems that read the same, keep the first"
    assert flags["ngram"].ranged and flags["ngram"].hint == Count
