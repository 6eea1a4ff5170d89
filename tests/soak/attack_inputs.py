"""Attacks on what users give: configs, data files, model directories, arguments, texts to be graded."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import models
from configs import atesd, grpo, kd, motab, sft, topd
from experiments.config.read import read_config
from experiments.data.sources import load_source
from experiments.grading import grade
from models.embedded import model_directory
from models.text.tokenizer import load_tokenizer

from .attack import SAME, Attack, Wrong

# Of no number, no text, no switch and no section.
_NEVER = (float("nan"), [1, [2]], {"zzz": 1}, object)


def _refused() -> ValueError:
    """What was said was heard already."""
    return ValueError("refused")


def configs(_: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """A field of another type, out of every range, or unknown, at any depth."""
    for number in range(150):
        fields = chance.choice((atesd, grpo, kd, motab, sft, topd)).get_config("").to_dict()
        section, path = fields, []
        while True:
            name = chance.choice(sorted(section))
            path.append(name)
            if not isinstance(section[name], dict) or not section[name]:
                break
            section = section[name]
        old, unknown = section[path[-1]], chance.random() < 0.3
        if unknown:
            path[-1] += "_zzz"
        new = 1 if unknown else _other(old, chance)
        section[path[-1]] = new

        def do(_: Path, fields: dict[str, Any] = fields) -> str:
            read_config(fields)
            raise Wrong("it was accepted")

        name = ".".join(path)
        yield Attack(kind, f"{number}: {name}={new!r:.40}", do, (name,))


def _other(old: Any, chance: random.Random) -> Any:
    """A value that a field can never have, given one that it has."""
    if isinstance(old, bool):
        return chance.choice((2, "yes", *_NEVER))
    if isinstance(old, int | float):
        return chance.choice(("ten", -(10**400), 10**400, *_NEVER))
    if isinstance(old, str):
        return chance.choice((3, True, *_NEVER))
    return chance.choice((3.5, float("nan"), object, {"zzz": 1}))


_GOOD = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]


def data_files(_: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Files of problems that are damaged, of another form, or no files."""
    good = b"".join(json.dumps(r).encode() + b"\n" for r in _GOOD)
    lines = good.splitlines(keepends=True)

    def record(**fields: Any) -> bytes:
        return b"".join([*lines[:2], json.dumps({**_GOOD[2], **fields}).encode() + b"\n"])

    contents: dict[str, bytes] = {
        "empty": b"",
        "blank lines alone": b"\n \n\n",
        "binary": chance.randbytes(2048),
        "not UTF-8": good.replace(b"What", b"Wh\xffat"),
        "UTF-16": good.decode().encode("utf-16"),
        "null": b"null\n",
        "a list": b"[1, 2]\n",
        "numbers": b"1\n2\n",
        "nested deeply": b"[" * 200_000,
        "an object nested deeply": b'{"problem": ' + b'{"a": ' * 100_000,
        "a record without a problem": record(problem=None),
        "a record without an answer": record(answer=None),
        "a problem that is empty": record(problem=""),
        "an answer that is a list": record(answer=[1]),
        "an answer that is an object": record(answer={"a": 1}),
        "NaN": b'{"problem": "x", "answer": NaN}\n',
        "a number of 10,000 digits": b'{"problem": "x", "answer": ' + b"9" * 10_000 + b"}\n",
        "another's fields": b'{"foo": 1, "bar": 2}\n' * 3,
    }
    for _number in range(12):
        content = bytearray(good[: chance.randrange(1, len(good) - 1)])
        contents[f"cut after {len(content)} bytes"] = bytes(content)
    for suffix in (".jsonl", ".json", ".parquet"):
        for name, content in contents.items():
            if suffix == ".parquet" and not name.startswith(("empty", "binary", "null", "cut")):
                continue

            def do(directory: Path, content: bytes = content, suffix: str = suffix) -> str:
                file = directory / f"hostile{suffix}"
                file.write_bytes(content)
                source = load_source({"name": str(file)}, needs_answer=True)
                found = [(e.problem, e.answer) for e in (source[i] for i in range(len(source)))]
                # Whole lines that are there before a cut are good.
                whole = [(r["problem"], r["answer"]) for r in _GOOD]
                if not found or found != whole[: len(found)]:
                    raise Wrong(f"it was read as {found}")
                return SAME

            yield Attack(kind, f"{suffix}: {name}", do, (f"hostile{suffix}",))
    makers: dict[str, Callable[[Path], object]] = {
        "a FIFO": os.mkfifo,
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a link to itself": lambda p: p.symlink_to(p),
        "a dangling link": lambda p: p.symlink_to(p.with_name("gone")),
        "an empty folder": Path.mkdir,
    }
    for name, make in makers.items():

        def do_special(directory: Path, make: Callable[[Path], object] = make) -> str:
            make(directory / "hostile.jsonl")
            load_source({"name": str(directory / "hostile.jsonl")}, needs_answer=True)
            raise Wrong("it was read")

        yield Attack(kind, name, do_special, ("hostile.jsonl",))


def model_directories(_: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """A model's config, weights and tokenizer: damaged, hostile, or no files."""
    source = model_directory("embedded:student")
    _config, expected = models.load_pretrained(source)

    def load(directory: Path) -> str:
        _, params = models.load_pretrained(directory)
        load_tokenizer(directory)
        same = jax.tree.map(
            lambda a, b: a.dtype == b.dtype and bool(np.array_equal(a, b)), params, expected
        )
        if jax.tree.structure(params) != jax.tree.structure(expected) or not all(
            jax.tree.leaves(same)
        ):
            raise Wrong("other weights")
        return SAME

    def attack(name: str, file: str, change: Callable[[Path], object]) -> Attack:
        def do(directory: Path) -> str:
            place = directory / "hostile"
            shutil.copytree(source, place)
            change(place / file)
            return load(place)

        return Attack(kind, f"{file}: {name}", do, ("hostile", file))

    def replace(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(file: Path) -> None:
            file.unlink()
            make(file)

        return change

    whole = {
        "deleted": Path.unlink,
        "emptied": lambda f: f.write_bytes(b""),
        "binary": lambda f: f.write_bytes(chance.randbytes(4096)),
        "cut": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
        "a list": lambda f: f.write_bytes(b"[]"),
        "null": lambda f: f.write_bytes(b"null"),
        "nested deeply": lambda f: f.write_bytes(b"[" * 100_000),
        "a FIFO": replace(os.mkfifo),
        "a device": replace(lambda f: f.symlink_to("/dev/zero")),
        "a folder": replace(Path.mkdir),
    }
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        for name, change in whole.items():
            yield attack(name, file, change)
    fields = json.loads((source / "config.json").read_text())
    numbers = sorted(k for k, v in fields.items() if isinstance(v, int | float))
    for _number in range(40):
        field = chance.choice(numbers)
        value = chance.choice([-1, 0, 2**70, 1.5, "x", None, [], {}, float("nan"), 10**400])

        def edit(file: Path, field: str = field, value: Any = value) -> None:
            file.write_text(json.dumps({**fields, field: value}))

        yield attack(f"{field}={value!r:.30}", "config.json", edit)
    for _number in range(20):
        yield attack("a byte of its header", "model.safetensors", _damage_header(chance))

    def far(file: Path) -> None:
        tensors = ["model.embed_tokens.weight"]
        index = {"weight_map": dict.fromkeys(tensors, "../../../etc/passwd")}
        file.rename(file.with_name("elsewhere.safetensors"))
        file.with_name("model.safetensors.index.json").write_text(json.dumps(index))

    yield attack("an index that leads outside", "model.safetensors", far)


def _damage_header(chance: random.Random) -> Callable[[Path], None]:
    at, bit, length = chance.random(), chance.randrange(8), chance.random() < 0.2

    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        size = struct.unpack("<Q", content[:8])[0]
        content[int(at * 8) if length else 8 + int(at * size)] ^= 1 << bit
        file.write_bytes(content)

    return change


def arguments(_: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Arguments that nobody asked for, and flags that are misspelt."""
    config = ("--config", "configs/motab.py:smoke")
    lines = [
        ("run", (*config, "config.steps=3"), "config.steps=3"),
        ("run", (*config, "-config.steps=3"), "-config.steps=3"),
        ("run", (*config, "--config.stepz=3"), "stepz"),
        ("run", (*config, "--config.student.zzz=3"), "student.zzz"),
        ("run", (*config, "--config.steps=many"), "steps"),
        ("run", (*config, "--workdr=x"), "--workdr"),
        ("run", (*config, "stray"), "stray"),
        ("run", ("configs/motab.py",), "configs/motab.py"),
        ("run", ("--config", "configs/mutab.py"), "configs/mutab.py"),
        ("run", ("--config", "configs/motab.py:nightly"), "nightly"),
        ("run", (), "--config"),
        ("synthesize", (*config, "--out", "x.jsonl", "synthesis.trajectories=3"), "synthesis.traj"),
        ("plan", (*config, "mesh=fsdp=8"), "mesh=fsdp=8"),
        ("evaluate", ("--model", "embedded:student", "samples=4"), "samples=4"),
        ("diagnose", ("teacher=x",), "teacher=x"),
        ("report", (), "WORKDIR"),
        ("report", ("/nowhere", "--trajectories=many"), "--trajectories"),
        ("export", ("--workdir", "x", "--out", "y", "--dtype=float8"), "float8"),
        ("export", ("--workdir", "x", "out=y"), "out=y"),
        ("show", ("/nowhere", "n=4"), "n=4"),
        ("paired", ("--before", "a", "b"), "b"),
    ]  # fmt: skip
    for command, given, name in lines:

        def do(_: Path, command: str = command, given: tuple[str, ...] = given) -> str:
            module = f"experiments.{command}"
            try:
                main = importlib.import_module(f"{module}.__main__").main
            except ModuleNotFoundError:
                main = importlib.import_module(module).main
            if main(list(given)) == 0:
                raise Wrong("it went through")
            raise _refused()

        yield Attack(kind, f"{command} {' '.join(given)}", do, (name,))


def grading(_: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Texts that are to take long, to break the worker, or to pass for the answer."""
    bombs = [
        "9^{9^{9^{9}}}", "10^{10^{10}}!", "(" * 5000, "{" * 5000 + "}" * 5000, r"\frac" * 2000,
        r"\sqrt{" * 500 + "2" + "}" * 500, "1" * 100_000, "x" * 100_000, r"\sum_{i=1}^{10^{9}} i",
        "+".join(f"x_{i}" for i in range(3000)), r"\int_0^1 x^{x^{x}} dx", "2^{-10^{12}}",
        r"\binom{10^9}{5\cdot 10^8}", "\x00\x01", "\ud800", "import os", "__import__('os')",
        r"\begin{matrix}" * 300, "0/0", "1e999999999", r"\text{" * 1000, ",".join(["1"] * 20_000),
        "\n".join(["4"] * 5000), "nan", r"\infty - \infty", " " * 50_000,
    ]  # fmt: skip
    # Each may take the whole time limit, and a new worker.
    for bomb in chance.sample(bombs, 14):
        for response, answer in ((rf"\boxed{{{bomb}}}", "4"), (r"\boxed{4}", bomb)):

            def do(_: Path, response: str = response, answer: str = answer) -> str:
                if grade(response, answer) and answer == "4":
                    raise Wrong("it passed for 4")
                return _still_right()

            yield Attack(kind, f"{response[:20]!r} for {answer[:20]!r}", do, ("answer",))
    wrong = [
        ("5", "4"), ("4.1", "4"), ("0.33", r"\frac{1}{3}"), ("x", "4"), ("(1,2)", "(2,1)"),
        (r"\{1,2\}", r"\{1,3\}"), ("[0,1)", "[0,1]"), ("10^{100}+1", "10^{100}"), ("1e-30", "0"),
        ("x<2", "x>2"), ("-4", "4"), ("1,000", "1"), ("y=4", "x=4"), ("101_2", "101_3"),
        ("1,2,...,8", "1,2,...,9"), (r"\emptyset", "0"), ("", "4"), ("4 4", "4"),
        (r"\frac{1}{2}", "2"), ("x^2+1", "x^2-1"), (r"\pi", "3.14"), ("True", "1"), ("i", "-1"),
    ]  # fmt: skip
    for given, answer in wrong:

        def mistaken(_: Path, given: str = given, answer: str = answer) -> str:
            if grade(rf"\boxed{{{given}}}", answer):
                raise Wrong("it passed")
            return SAME

        yield Attack(kind, f"{given!r} is not {answer!r}", mistaken, ("answer",))
    for number in range(6):
        after = chance.uniform(0.0005, 0.05)

        def interrupted(_: Path, number: int = number, after: float = after) -> str:
            def stop(*_: object) -> None:
                raise KeyboardInterrupt  # as Ctrl-C does

            limit = signal.signal(signal.SIGALRM, stop), signal.setitimer(signal.ITIMER_REAL, after)
            try:
                for i in range(20):
                    grade(rf"\boxed{{\sqrt{{{i}{number}}}+x}}", rf"x+\sqrt{{{i}{number}}}")
            except KeyboardInterrupt:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, *limit[1])
                signal.signal(signal.SIGALRM, limit[0])
            return _still_right()

        yield Attack(kind, f"interrupted after {after:.4f} s", interrupted, ("answer",))


def _still_right() -> str:
    """What comes afterwards is graded as ever."""
    pairs = ((r"\frac{1}{2}", "0.5", True), ("x+1", "1+x", True), ("x+2", "1+x", False))
    for given, answer, right in pairs:
        if grade(rf"\boxed{{{given}}}", answer) is not right:
            raise Wrong(f"afterwards {given} for {answer} was not {right}")
    return SAME


MAKERS = (
    ("hostile configs", configs),
    ("stray arguments", arguments),
    ("hostile data files", data_files),
    ("hostile model directories", model_directories),
    ("grading attacks", grading),
)
