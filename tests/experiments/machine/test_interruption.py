"""SIGTERM and SIGINT: the first asks, the second ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiments.checkpoints.files import find_step
from experiments.compare.execute import compare
from experiments.compare.settings import read_study
from experiments.config.read import read_config
from experiments.evaluate import __main__ as evaluate
from experiments.evaluate.part import Part
from experiments.machine import interruption
from experiments.machine.exit_codes import Interrupted
from experiments.machine.interruption import check, interruptible, requested
from experiments.methods import make_recipe
from experiments.pair.pair import load_pair
from experiments.rollouts.synthesis import synthesise
from experiments.train.loop import run
from experiments.workdir.workdir import Workdir, read_log

from ..quick_runs import references
from ..study_runs import FakeTrainer, small_study
from ..train.test_run import same_params, small, steps_logged

ROOT = Path(interruption.__file__).resolve().parent.parent.parent


def send(number: int = signal.SIGTERM) -> None:
    """A signal to this process, once it has arrived."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not requested():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request(number):
    before = signal.getsignal(number), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    with interruptible():
        check("nothing was asked.")
        assert not requested()
        with interruptible():  # as a study's runs are
            send(number)
        assert requested()
        with pytest.raises(Interrupted, match=rf"by {signal.Signals(number).name}: 3 of 4 are"):
            check("3 of 4 are there.")
        assert not isinstance(Interrupted(), Exception)
    assert not requested()
    assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == before


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_ends_the_process_even_inside_compiled_code(number):
    code = """
        import jax
        from experiments.machine.interruption import interruptible
        forever = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x, x))
        with interruptible():
            print("ready", flush=True)
            # Without end, and meanwhile Python runs no handler.
            jax.block_until_ready(forever(1))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        while "Once more ends it at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    finally:
        process.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run(references(every=3), workdir)
    return workdir


def validations(workdir: Path) -> list[tuple[int, float]]:
    records = read_log(workdir / "metrics.jsonl")
    return [(r["step"], r["accuracy"]) for r in records if r["kind"] == "validation"]


@pytest.mark.parametrize(("step", "saved"), [(1, 2), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_an_interrupted_run_saves_the_step_and_ends_bit_identical(
    step, saved, whole, tmp_path, monkeypatch
):
    """Between checkpoints, and where one is due, whose validation is made up for."""
    append = Workdir.append_metrics

    def then_signal(self, record):
        append(self, record)
        if (record["kind"], record["step"]) == ("train", step):
            send()

    monkeypatch.setattr(Workdir, "append_metrics", then_signal)
    with pytest.raises(Interrupted, match=f"by SIGTERM: saved after step {saved} of 6"):
        run(references(every=3), tmp_path)
    monkeypatch.undo()
    assert steps_logged(tmp_path)[-1] == find_step(tmp_path / "checkpoints", "final") == saved
    run(references(every=3), tmp_path)
    assert steps_logged(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert same_params(tmp_path, whole)
    assert validations(tmp_path) == validations(whole)
    best = [find_step(path / "checkpoints", "best") for path in (tmp_path, whole)]
    assert best[0] == best[1]


@pytest.mark.slow
def test_an_interrupted_synthesis_keeps_what_is_written(tmp_path, monkeypatch):
    config = small("")
    config.synthesis.trajectories = 24
    config.synthesis.slots = 4
    pair = load_pair(read_config(config))
    recipe = make_recipe(read_config(config), pair)
    path = tmp_path / "trajectories.jsonl"
    lines = recipe.lines

    def then_signal(*arguments):
        send()
        return lines(*arguments)

    with interruptible():
        monkeypatch.setattr(recipe, "lines", then_signal)
        with pytest.raises(Interrupted, match=r"[0-9]+ of 24 trajectories are in .*jsonl\."):
            synthesise(read_config(config), pair, recipe, path)
        monkeypatch.undo()
    first = path.read_bytes()
    assert 0 < len(first.splitlines()) - 1 < 24
    synthesise(read_config(config), pair, recipe, path)
    assert path.read_bytes().startswith(first)
    ids = [json.loads(line)["sample_id"] for line in path.read_bytes().splitlines()[1:]]
    assert sorted(ids) == list(range(24))


def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch, capsys):
    command = [
        "--model", "embedded:student", "--data", "chain/test", "--size", "12", "--n", "2",
        "--max_new_tokens", "16", "--batch_size", "4",
    ]  # fmt: skip
    add = Part.add

    def then_signal(self, records):
        add(self, records)
        send()

    monkeypatch.setattr(Part, "add", then_signal)
    out = tmp_path / "cut"
    assert evaluate.main([*command, "--out", str(out)]) == 75
    monkeypatch.undo()
    assert re.search(r"\d+ of 24 graded samples are in .*cut\. The same", capsys.readouterr().err)
    kept = (out / "samples.jsonl.part").read_bytes()
    assert 0 < len(kept.splitlines()) - 1 < 24
    with (out / "samples.jsonl.part").open("ab") as file:
        file.write(b'[23, {"id": "tor')
    asked = []
    monkeypatch.setattr(Part, "add", lambda self, records: asked.extend(records))
    assert evaluate.main([*command, "--out", str(out)]) == 0
    assert len(asked) == 24 - (len(kept.splitlines()) - 1)
    assert evaluate.main([*command, "--out", str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    assert (out / "samples.jsonl").read_bytes() == whole
    assert sorted(p.name for p in out.iterdir()) == [
        "evaluation.png",
        "results.json",
        "samples.jsonl",
    ]


def test_nothing_is_taken_from_another_evaluation(tmp_path, caplog):
    part = Part(tmp_path / "part", {"seed": 0})
    part.add({3: {"right": True}})
    assert Part(tmp_path / "part", {"seed": 0}).known == {3: {"right": True}}
    assert Part(tmp_path / "part", {"seed": 1}).known == {}
    assert "of another evaluation" in caplog.text
    assert Part(tmp_path / "part", {"seed": 0}).known == {}


@pytest.mark.slow
def test_an_interrupted_study_shows_what_it_has_and_goes_on(tmp_path):
    """A run that is interrupted has not failed; the finished ones are not done again."""
    console, train = Console(quiet=True), FakeTrainer()

    def second_is_interrupted(config, directory, console):
        if len(train.asked) == 1:
            send()
            check("saved after step 1 of 4.")
        train(config, directory, console)

    study = small_study(learning_rates=(1e-3,))
    with pytest.raises(Interrupted, match="saved after step 1 of 4"):
        compare(read_study(study), tmp_path, train=second_is_interrupted, console=console)
    assert not list(tmp_path.rglob("error.txt"))
    assert (tmp_path / "table.md").exists()
    first = train.names[0]
    assert compare(read_study(study), tmp_path, train=train, console=console) == {}
    assert train.names.count(first) == 1 and len(train.names) == 8
