"""Attacks on a run's directory itself: its lock, links in the place of files, addresses."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments import show
from experiments.workdir.workdir import Workdir

from .attack import SAME, Attack, Wrong


def directories(directory: Path, chance: random.Random, kind: str) -> Iterator[Attack]:
    """Locks, links and folders in a run's directory."""

    def opened(prepare: Callable[[Path], None]) -> Callable[[Path], str]:
        def do(workdir: Path) -> str:
            victim = workdir / "victim"
            victim.write_text("precious")
            place = workdir / "run"
            place.mkdir()
            prepare(place)
            try:
                with Workdir(place, {"seed": 0}) as opened_:
                    opened_.append_metrics({"step": 0, "kind": "validation", "accuracy": 0.5})
                    opened_.write_results({"steps": 1})
            finally:
                if victim.read_text() != "precious":
                    raise Wrong("a link was followed")
            return SAME

        return do

    def link(name: str) -> Callable[[Path], str]:
        return opened(lambda place: (place / name).symlink_to(place.parent / "victim"))

    names = ("lock", ".config.json.unfinished", ".results.json.unfinished", "metrics.jsonl")
    for name in names:
        yield Attack(kind, f"{name} is a link", link(name), (name,))
    yield Attack(kind, "lock is a FIFO", opened(lambda p: os.mkfifo(p / "lock")), ("lock",))
    yield Attack(kind, "lock is a folder", opened(lambda p: (p / "lock").mkdir()), ("lock",))

    def second_writer(workdir: Path) -> str:
        with Workdir(workdir, {"seed": 0}):
            (workdir / "lock").unlink()
            Workdir(workdir, {"seed": 0}).close()
        raise Wrong("a second writer came in")

    def looked_at(workdir: Path) -> str:
        os.mkfifo(workdir / "config.json")
        if show.main([str(workdir)]) == 0:
            raise Wrong("it went through")
        raise ValueError("refused")

    yield Attack(kind, "the lock is deleted", second_writer, ("another run",))
    yield Attack(kind, "config.json is a FIFO", looked_at, ("config.json",))
    for path in ("gs://bucket/run", "s3://bucket/run", "file:///tmp/run"):
        yield Attack(
            kind,
            path,
            lambda _, path=path: Workdir(path, {"seed": 0}).close() or SAME,
            ("workdir",),
        )


MAKERS = (("links, locks and schemes", directories),)
