"""Flags as dataclasses say them, fields of configs, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest

from experiments.command.config_file import ConfigFile
from experiments.command.flags import Flag, read_flags
from models.checks import Count

ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    seed: Annotated[int, Flag("of the noise")] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Common):
    place: Annotated[Path, Flag("where", positional=True)]
    name: Annotated[str, Flag("of what", choices=("alpha", "beta"))]
    n: Annotated[Count, Flag("how many; 95 % of them")] = 8
    rate: Annotated[float | None, Flag("how fast")] = None
    loud: Annotated[bool, Flag("whether it is heard")] = False
    seeds: Annotated[tuple[int, ...] | None, Flag("which", "SEED,...", separator=",")] = None
    data: Annotated[tuple[str, ...], Flag("more of it")] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithConfig(Common):
    config: Annotated[ConfigFile, Flag("such as configs/motab.py")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManyPlaces(Common):
    places: Annotated[tuple[Path, ...], Flag("where", positional=True)]


def read(*arguments, settings=Settings):
    return read_flags(settings, "python -m it", "What it does: 95 % of it.", arguments)


def refusal(capsys, *arguments, settings=Settings):
    """What is said, in a line, when they are refused."""
    with pytest.raises(SystemExit) as ended:
        read(*arguments, settings=settings)
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1 and error.startswith("python -m it: ")
    return error


def test_what_is_given_is_read_and_typed():
    given = read("here", "--name=beta", "--n", "3", "--rate=1e-3", "--loud", "--seeds", "0, 2",
                 "--data", "a", "b", "--data", "c", "--seed=-1")  # fmt: skip
    assert given == Settings(
        place=Path("here"), name="beta", n=3, rate=1e-3, loud=True, seeds=(0, 2),
        data=("a", "b", "c"), seed=-1,
    )  # fmt: skip


def test_what_is_not_given_is_as_the_dataclass_says():
    assert read("here", "--name", "alpha") == Settings(place=Path("here"), name="alpha")


def test_help_says_meaning_default_and_choices(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "What it does: 95 % of it.", "how many; 95 % of them (default: 8)",
        "--name {alpha,beta} of what (required)", "--seeds SEED,... which", "PLACE where",
        "of the noise (default: 0)", "--loud whether it is heard",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here"], "--name is missing: of what."),
        (["--name=beta"], "PLACE is missing: where."),
        (["here", "there", "--name=beta"], "there: this argument is stray."),
        (["here", "n=3", "--name=beta"], "n=3: this argument is stray; did you mean --n=3?"),
        (["n=3", "--name=beta"], "n=3: this argument is stray; did you mean --n=3?"),
        (["here", "-n=3", "--name=beta"], "-n=3: this argument is stray; did you mean --n=3?"),
        (["here", "—n=3", "--name=beta"], "—n=3: this argument is stray; did you mean --n=3?"),
        (["here", "--data", "a", "n=3"], "n=3: this argument is stray; did you mean --n=3?"),
        (["here", "--sede=3"], "--sede=3: there is no such flag; did you mean --seed=3?"),
        (["here", "--see=3"], "--see=3: there is no such flag; did you mean --seed=3?"),
        (["here", "--zzz"], "--zzz: there is no such flag."),
        (["here", "--name=bet"], "'bet' is not known; did you mean beta? choose among alpha, beta"),
        (["here", "--name=beta", "--n=1.5"], "'1.5' is not a whole number"),
        (["here", "--name=beta", "--n=0"], "--n=0 must be at least 1."),
        (["here", "--name=beta", "--rate=nan"], "'nan' is not a number"),
        (["here", "--name=beta", "--seeds=0,x"], "--seeds=0,x: 'x' is not a whole number"),
        (["here", "--name=beta", "--n"], "argument --n: expected one argument"),
        (["here", "--name=beta", "--loud=no"], "argument --loud: ignored explicit argument 'no'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_was_meant(arguments, message, capsys):
    assert message in refusal(capsys, *arguments)


def test_a_flag_among_many_places_is_no_place(capsys):
    message = refusal(capsys, "a", "seed=3", settings=ManyPlaces)
    assert "seed=3: this argument is stray; did you mean --seed=3?" in message
    assert read("a", "b=c", settings=ManyPlaces).places == (Path("a"), Path("b=c"))


@pytest.mark.parametrize(
    "fields",
    [
        ["--config.steps=3", "--config.motab.gamma_0", "0.25", "--config.motab.stitch=false"],
        ["--config.steps", "3", "--config.motab.gamma_0=0.25", "--noconfig.motab.stitch"],
    ],
)
def test_fields_of_a_config_are_set_by_their_types(fields):
    given = read("--config", "configs/motab.py:smoke", *fields, "--seed", "4", settings=WithConfig)
    config = given.config.fields
    assert (config.steps, config.motab.gamma_0, config.motab.stitch) == (3, 0.25, False)
    assert given.seed == 4 and given.config.name == "motab-smoke" and config.is_locked


def test_a_run_is_named_after_file_and_variant():
    config = read("--config", "configs/motab.py", settings=WithConfig).config
    assert config.name == "motab" and config.flag == "configs/motab.py"


def test_a_field_may_be_negative_and_set_twice():
    config = read("--config=configs/motab.py", "--config.seed", "-1", "--config.motab.gamma_0=1",
                  "--config.seed", "-2", settings=WithConfig).config.fields  # fmt: skip
    assert config.seed == -2 and config.motab.gamma_0 == 1.0


MOTAB = ["--config", "configs/motab.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MOTAB, "config.steps=3"], "config.steps=3: this argument is stray; did you mean --config.steps=3?"),
        (["config.steps=3", *MOTAB], "did you mean --config.steps=3?"),
        ([*MOTAB, "-config.steps=3"], "did you mean --config.steps=3?"),
        ([*MOTAB, "–config.steps=3"], "did you mean --config.steps=3?"),
        ([*MOTAB, "steps=3"], "steps=3: this argument is stray; did you mean --config.steps=3?"),
        ([*MOTAB, "--steps=3"], "--steps=3: there is no such flag; did you mean --config.steps=3?"),
        ([*MOTAB, "motab.gamma_0=1"], "did you mean --config.motab.gamma_0=1?"),
        ([*MOTAB, "--gamma_0=1"], "did you mean --config.motab.gamma_0=1?"),
        ([*MOTAB, "3"], "3: this argument is stray."),
        (["configs/motab.py"], "did you mean --config configs/motab.py?"),
        ([*MOTAB, "--config.motab.gama_0=1"], "did you mean --config.motab.gamma_0?"),
        ([*MOTAB, "--config.student.zzz=1"], "--config.student.zzz=1: configs/motab.py has no such field."),
        ([*MOTAB, "--config.steps.zzz=1"], "configs/motab.py has no such field"),
        ([*MOTAB, "--config.steps=x"], "--config.steps=x: invalid literal for int()"),
        ([*MOTAB, "--config.steps"], "--config.steps"),
        ([*MOTAB, "--config.student=x"], "--config.student=x: Failed to parse"),
        (["--config", "configs/motb.py"], "there is no such file; did you mean configs/motab.py?"),
        (["--config", "configs"], "--config configs: there is no such file"),
        (["--config", "configs/motab.py:smok"], "the variants are offline, online"),
        (["--config", "README.md"], "--config README.md: line "),
        ([], "--config is missing: such as configs/motab.py."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_config_is_said_before_it_is_used(arguments, message, capsys):
    assert message in refusal(capsys, *arguments, settings=WithConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("get_config = 3", "'int' object is not callable"),
        ("x = 3", "AttributeError: module"),
        ("def get_config(): return {}", "get_config returned no ConfigDict but {}"),
        ("def get_config(): raise ValueError('no\\n such thing')", ": no such thing"),
        ("def get_config(): raise OSError('gone')", "OSError: gone"),
    ],
)
def test_a_config_that_cannot_be_run_is_named_with_the_reason(text, message, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(text)
    said = refusal(capsys, "--config", str(file), settings=WithConfig)
    assert f"--config {file}: " in said and message in said


def test_numbers_are_finite():
    assert math.isclose(read("x", "--name=beta", "--rate=2").rate, 2.0)


def test_a_command_in_a_process_of_its_own_is_refused_without_a_trace():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--config", "configs/motab.py",
         "--config.motab.gama_0=1"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "did you mean --config.motab.gamma_0?" in done.stderr
