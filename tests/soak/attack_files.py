"""Attacks on what a run keeps: logs, checkpoints, results, trajectories, teacher scores."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import kd
from experiments import export
from experiments.checkpoints.files import read_run
from experiments.config.read import read_config
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.report import __main__ as report
from experiments.rollouts.synthesis import SYNTHESIS
from experiments.rollouts.trajectory_batches import TrajectoryBatches
from experiments.train.loop import run

from .attack import SAID, SAME, Attack, Wrong

STEPS = 2
_CLOCK = (
    "seconds",
    "wall_seconds",
    "compile_seconds",
    "train_seconds",
    "incomplete_logs",
    "commit",
)
Change = Callable[[Path], None]


def config(seed: int = 0) -> ConfigDict:
    """Offline distillation on kept teacher scores, in seconds: every kind of file is written."""
    made = kd.get_config("smoke")
    made.seed, made.steps, made.batch_size = seed, STEPS, 4
    made.data.train.size, made.data.validation.size, made.data.test.size = 8, 2, 2
    made.data.long.name = ""
    made.rollout.max_total = made.evaluation.max_tokens = 32
    made.evaluation.batch_size = 2
    made.synthesis.trajectories = 8
    made.checkpoint.every, made.samples.every = 1, 1
    return made


def base(directory: Path, seed: int = 0) -> Path:
    """A finished run, made once."""
    workdir = directory / f"base-{seed}"
    if not (workdir / "results.json").exists():
        run(config(seed), workdir)
    return workdir


def timeless(value: Any) -> Any:
    """Results without what the clock and the checkout say."""
    if isinstance(value, dict):
        return {name: timeless(x) for name, x in value.items() if name not in _CLOCK}
    return value


def _stopped(source: Path, workdir: Path) -> None:
    """A copy of a finished run as a kill in its last evaluation leaves it."""
    workdir.rmdir()
    shutil.copytree(source, workdir)
    for name in ("results.json", "report.png", "samples/after-test.jsonl"):
        (workdir / name).unlink()


def _resumed(source: Path, workdir: Path) -> str:
    """Goes on, and compares the end with the undisturbed one.

    Raises:
      Wrong: they differ.
    """
    results = run(config(), workdir)
    before = json.loads((source / "results.json").read_text())
    if timeless(results) != timeless(before):
        raise Wrong("other results")
    final, other = (read_run(w / "checkpoints" / str(STEPS)) for w in (source, workdir))
    if final["checksums"] != other["checksums"]:
        raise Wrong("other weights")
    return SAID if results.get("incomplete_logs") else SAME


def _going_on(kind: str, source: Path, changes: dict[str, Change], *names: str) -> Iterator[Attack]:
    for name, change in changes.items():

        def do(workdir: Path, change: Change = change) -> str:
            _stopped(source, workdir)
            change(workdir)
            return _resumed(source, workdir)

        yield Attack(kind, name, do, names)


def _lines(file: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))


def _edited(line: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(line), **fields}).encode() + b"\n"


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    """Puts something that is no file in place of a file."""
    path.unlink()
    make(path)


def line_changes(name: str, chance: random.Random) -> dict[str, Change]:
    """What may happen to a file of lines."""

    def lines(change: Callable[[list[bytes]], list[bytes]]) -> Change:
        return lambda workdir: _lines(workdir / name, change)

    def somewhere(found: list[bytes], line: bytes) -> list[bytes]:
        at = chance.randrange(len(found) + 1)
        return [*found[:at], line, *found[at:]]

    def flip(workdir: Path) -> None:
        content = bytearray((workdir / name).read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (workdir / name).write_bytes(content)

    def cut(workdir: Path) -> None:
        content = (workdir / name).read_bytes()
        (workdir / name).write_bytes(content[: chance.randrange(len(content))])

    return {
        "deleted": lambda w: (w / name).unlink(),
        "emptied": lambda w: (w / name).write_bytes(b""),
        "cut": cut,
        "cut again": cut,
        "a bit flipped": flip,
        "another bit flipped": flip,
        "reversed": lines(lambda found: found[::-1]),
        "doubled": lines(lambda found: found * 2),
        "a line doubled": lines(lambda found: somewhere(found, chance.choice(found))),
        "a line dropped": lines(lambda found: found[:1] + found[2:]),
        "binary": lambda w: (w / name).write_bytes(chance.randbytes(4096)),
        "a line not UTF-8": lines(lambda found: somewhere(found, b"\xff\xfe{\x00}\n")),
        "a line nested deeply": lines(lambda found: somewhere(found, b"[" * 100_000 + b"\n")),
        "a line of a list": lines(lambda found: somewhere(found, b"[1, 2]\n")),
        "a line of null": lines(lambda found: somewhere(found, b"null\n")),
        "a huge line": lines(lambda found: somewhere(found, b'{"step": 1, "x": "' + b"y" * 2**24)),
    }


def logs(directory: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """metrics.jsonl and trajectories.jsonl between two starts of a run."""
    source = base(directory)
    for name in ("metrics.jsonl", "trajectories.jsonl"):
        yield from _going_on(kind, source, line_changes(name, chance), name)

    def change(**fields: Any) -> Change:
        return lambda w: _lines(w / "metrics.jsonl", lambda ls: [_edited(x, **fields) for x in ls])

    changes = {
        "of a step to come": change(step=10**15),
        "of a step before all": change(step=-3),
        "of a step that is true": change(step=True),
        "of a step that is text": change(step="1"),
        "of no known kind": change(kind="other"),
        "of numbers that are lists": change(loss_tokens=[1], seconds={}),
        "other numbers": change(loss_tokens=7, accuracy=1.0),
        "NaN": change(loss_tokens=float("nan"), accuracy=float("nan")),
        "a link to a device": lambda w: _replace(
            w / "metrics.jsonl", lambda p: p.symlink_to("/dev/zero")
        ),
        "a FIFO": lambda w: _replace(w / "metrics.jsonl", os.mkfifo),
        "a folder": lambda w: _replace(w / "metrics.jsonl", os.mkdir),
        "another run's": lambda w: shutil.copy(base(directory, 1) / "metrics.jsonl", w),
    }
    yield from _going_on(kind, source, changes, "metrics.jsonl")
    changes = {
        "deleted": lambda w: (w / "samples" / "before-test.jsonl").unlink(),
        "emptied": lambda w: (w / "samples" / "before-test.jsonl").write_bytes(b""),
    }
    yield from _going_on(kind, source, changes, "before-test.jsonl")


def checkpoints(directory: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Checkpoints renamed, swapped, mixed, damaged."""
    source = base(directory)

    def at(workdir: Path, *parts: str) -> Path:
        return workdir.joinpath("checkpoints", *parts)

    def swap(*parts: str) -> Change:
        def change(workdir: Path) -> None:
            one, two, aside = at(workdir, "1", *parts), at(workdir, "2", *parts), workdir / "aside"
            one.rename(aside)
            two.rename(one)
            aside.rename(two)

        return change

    def put(*parts: str) -> Change:
        """The part of checkpoint 1 in checkpoint 2."""

        def change(workdir: Path) -> None:
            shutil.rmtree(at(workdir, "2", *parts))
            shutil.copytree(at(workdir, "1", *parts), at(workdir, "2", *parts))

        return change

    def foreign(workdir: Path) -> None:
        shutil.rmtree(at(workdir, "2"))
        shutil.copytree(at(base(directory, 1), "2"), at(workdir, "2"))

    def some_file(workdir: Path, change: Callable[[Path], None]) -> None:
        files = sorted(p for p in at(workdir, "2").rglob("*") if p.is_file() and p.stat().st_size)
        change(chance.choice(files))

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)

    def link(workdir: Path) -> None:
        at(workdir, "3").symlink_to(at(workdir, "1"))

    changes: dict[str, Change] = {
        "swapped": swap(),
        "renamed to a step to come": lambda w: at(w, "2").rename(at(w, "9")),
        "renamed to an earlier step": lambda w: (
            shutil.rmtree(at(w, "1")),
            at(w, "2").rename(at(w, "1")),
            None,
        )[2],
        "a link to another": link,
        "arrays of another step": put("state"),
        "state on the host of another step": put("run"),
        "its accuracy of another step": put("metrics"),
        "another run's": foreign,
        "a name with zeros": lambda w: at(w, "2").rename(at(w, "002")),
        "a folder without anything": lambda w: at(w, "3").mkdir(),
        "a file of that name": lambda w: at(w, "3").write_bytes(b"x"),
        "all gone": lambda w: shutil.rmtree(at(w)),
    }
    for number in range(3):
        changes[f"a file cut ({number})"] = lambda w: some_file(
            w, lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2])
        )
        changes[f"a bit flipped ({number})"] = lambda w: some_file(w, flip)
        changes[f"a file deleted ({number})"] = lambda w: some_file(w, Path.unlink)
    yield from _going_on(kind, source, changes, "checkpoints")


# What may stand where an object belongs.
_CONTENTS = {
    "emptied": b"",
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "binary": b"\x00\xff\xfe",
    "nested deeply": b"[" * 100_000,
    "cut": b'{"before": {"accur',
    "NaN": b'{"after": {"accuracy": NaN}}',
}


def results(directory: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """results.json and config.json, read by the run itself and by the commands that look at it."""
    source = base(directory)

    def again(workdir: Path) -> str:
        found = run(config(), workdir)
        same = timeless(found) == timeless(json.loads((source / "results.json").read_text()))
        if not same:
            raise Wrong("other results")
        return SAME

    def command(main: Callable, *arguments: str) -> Callable[[Path], str]:
        def look(workdir: Path) -> str:
            code = main([x.replace("WORKDIR", str(workdir)) for x in arguments])
            if code == 0:
                raise Wrong("it went through")
            raise ValueError("refused")  # what it says was heard

        return look

    looks = {
        "run": again,
        "report": command(report.main, "WORKDIR"),
        "export": command(export.main, "--workdir", "WORKDIR", "--out", "WORKDIR/out"),
    }
    wrong_fields = {
        "before is a list": b'{"before": [1]}',
        "accuracy is text": b'{"after": {"accuracy": "high"}}',
        "an interval of one": b'{"after": {"accuracy": 0.5, "interval": [1]}}',
        "long is a number": b'{"long": 3}',
        "tokens are null": b'{"synthesis": {"tokens": null}}',
    }
    for file, contents in (
        ("results.json", {**_CONTENTS, **wrong_fields}),
        ("config.json", _CONTENTS),
    ):
        for name, content in contents.items():
            for who, look in looks.items():

                def do(
                    workdir: Path,
                    file: str = file,
                    content: bytes = content,
                    look: Callable[[Path], str] = look,
                ) -> str:
                    workdir.rmdir()
                    shutil.copytree(source, workdir)
                    (workdir / file).write_bytes(content)
                    return look(workdir)

                yield Attack(kind, f"{file} {name}, {who}", do, (file,))


def kept_files(directory: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Trajectories and teacher scores, read by those who train on them."""
    source = base(directory)
    made = config()
    recipe = make_recipe(read_config(made), load_pair(read_config(made)))
    expected = next(TrajectoryBatches(read_config(made), recipe, source / SYNTHESIS))

    def train_on(file: Path) -> str:
        found = next(TrajectoryBatches(read_config(made), recipe, file))
        if [r["sample_id"] for r in found["records"]] != [
            r["sample_id"] for r in expected["records"]
        ]:
            raise Wrong("other trajectories")
        for name in ("sampled_BxT", "log_probs_BxTxK"):
            ours, theirs = (
                getattr(x["trajectories"].teacher_scores, name) for x in (found, expected)
            )
            if abs(ours - theirs).max() > 1e-5:
                raise Wrong("other teacher scores")
        return SAME

    def copy(workdir: Path) -> Path:
        shutil.copytree(source / f"{SYNTHESIS}.teacher", workdir / f"{SYNTHESIS}.teacher")
        shutil.copy(source / SYNTHESIS, workdir)
        return workdir / SYNTHESIS

    for name, change in line_changes(SYNTHESIS, chance).items():

        def do(workdir: Path, change: Change = change) -> str:
            file = copy(workdir)
            change(workdir)
            return train_on(file)

        yield Attack(kind, f"trajectories {name}", do, (SYNTHESIS,))

    def score_change(change: Callable[[list[Path]], None]) -> Callable[[Path], str]:
        def do(workdir: Path) -> str:
            file = copy(workdir)
            change(sorted((workdir / f"{SYNTHESIS}.teacher").iterdir()))
            return train_on(file)

        return do

    def flip(files: list[Path]) -> None:
        content = bytearray(files[0].read_bytes())
        content[-1 - chance.randrange(len(content) // 2)] ^= 1 << chance.randrange(8)
        files[0].write_bytes(content)

    def swap(files: list[Path]) -> None:
        files[0].rename(files[0].with_name("aside"))
        files[1].rename(files[0])
        files[0].with_name("aside").rename(files[1])

    for name, change_scores in {
        "a bit flipped": flip,
        "another bit flipped": flip,
        "swapped": swap,
        "one deleted": lambda files: files[0].unlink(),
        "one cut": lambda files: files[0].write_bytes(files[0].read_bytes()[:100]),
        "one emptied": lambda files: files[0].write_bytes(b""),
        "one in place of another": lambda files: shutil.copy(files[1], files[0]),
    }.items():
        yield Attack(
            kind, f"teacher scores {name}", score_change(change_scores), (".safetensors", SYNTHESIS)
        )


MAKERS = (
    ("damaged logs", logs),
    ("checkpoints swapped or damaged", checkpoints),
    ("damaged results and configs of runs", results),
    ("damaged trajectories and teacher scores", kept_files),
)
