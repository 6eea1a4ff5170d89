"""A run's directory under kills, full disks, second writers and changed configs."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.machine import environment as environment_module
from experiments.machine.environment import environment
from experiments.workdir import workdir
from experiments.workdir.workdir import Workdir, plain, read_log, read_run_config

ROOT = Path(workdir.__file__).resolve().parent.parent.parent
CONFIG = {"seed": 0, "motab": {"gamma_0": 0.7, "signal": "likelihood"}, "steps": [1, 2]}


def in_another_process(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_reopens_with_the_same_config(tmp_path):
    config = ConfigDict({**CONFIG, "steps": (1, 2)})
    with Workdir(tmp_path / "new" / "run", config) as run:
        assert run.path.is_absolute()
        assert run.checkpoints == run.path / "checkpoints"
        run.append_metrics({"step": 0, "kind": "train"})
    Workdir(tmp_path / "new" / "run", CONFIG).close()
    assert read_run_config(tmp_path / "new" / "run") == CONFIG


def test_names_every_field_that_differs(tmp_path):
    with Workdir(tmp_path, CONFIG) as run:
        run.append_metrics({"step": 0, "kind": "train"})
    other = {"seed": 0, "motab": {"gamma_0": 0.5, "signal": "jsd"}, "steps": [1, 2], "data": {}}
    with pytest.raises(ValueError, match="Use another --workdir") as caught:
        Workdir(tmp_path, ConfigDict(other))
    lines = str(caught.value).splitlines()[1:-1]
    assert [line.strip() for line in lines] == [
        "motab.gamma_0: 0.7 in the workdir, 0.5 now",
        'motab.signal: "likelihood" in the workdir, "jsd" now',
        "data: absent in the workdir, {} now",
    ]
    assert read_run_config(tmp_path) == CONFIG
    Workdir(tmp_path, CONFIG).close()  # the refused opening let go of the lock


def test_refuses_what_it_cannot_know(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"holds metrics\.jsonl but no config\.json"):
        Workdir(tmp_path, CONFIG)
    with pytest.raises(TypeError, match="JSON values only"):
        Workdir(tmp_path / "b", {"dtype": np.float32})
    with pytest.raises(FileNotFoundError, match="not a run's directory"):
        read_run_config(tmp_path)


def test_one_writer_until_it_is_killed(tmp_path):
    holder = in_another_process(
        """
        import sys, os, time
        from experiments.workdir.workdir import Workdir
        run = Workdir(sys.argv[1], {"seed": 0})
        # A worker of the run must not hold the lock after it. It lets go when it first runs, so it
        # is the one to say that it does.
        if os.fork() == 0:
            print(os.getpid(), flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(RuntimeError, match=rf"another run \(process {holder.pid}\)"):
            Workdir(tmp_path, {"seed": 0})
        holder.kill()
        holder.wait()
        with (
            Workdir(tmp_path, {"seed": 0}),
            pytest.raises(RuntimeError, match=f"process {os.getpid()}"),
        ):
            Workdir(tmp_path, {"seed": 0})
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
    Workdir(tmp_path, {"seed": 0}).close()


def test_every_metrics_line_is_strict_json(tmp_path):
    with Workdir(tmp_path, CONFIG) as run:
        run.append_metrics(
            {"step": np.int64(3), "kind": "train", "loss": jnp.float32(jnp.nan), "v": [np.inf, 1]}
        )
        run.append_metrics(
            {"step": 4, "kind": "train", "loss": np.float32(0.5), "norm": -float("inf")}
        )
        with pytest.raises(ValueError, match="integer step"):
            run.append_metrics({"kind": "train"})

    def refuse(name):
        raise AssertionError(name)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    assert records[0] == {"step": 3, "kind": "train", "loss": "nan", "v": ["inf", 1]}
    assert records[1] == {"step": 4, "kind": "train", "loss": 0.5, "norm": "-inf"}
    assert float(records[1]["norm"]) == -np.inf


def test_plain_refuses_what_has_no_json_form():
    with pytest.raises(TypeError, match="no JSON form"):
        plain({"a": object()})


def test_cut_back_forgets_later_lines_and_a_torn_one(tmp_path):
    with Workdir(tmp_path, CONFIG) as run:
        for step in range(6):
            run.append_metrics({"step": step, "kind": "train", "loss": step / 3})
            run.append_trajectories([{"step": step, "id": 0}, {"step": step, "id": 1}])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    with Workdir(tmp_path, CONFIG) as run:
        whole = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
        run.cut_back(3)
        assert (tmp_path / "metrics.jsonl").read_text() == "".join(whole[:4])
        assert [r["step"] for r in read_log(tmp_path / "trajectories.jsonl")] == [
            0, 0, 1, 1, 2, 2, 3, 3,
        ]  # fmt: skip
        run.append_metrics({"step": 4, "kind": "train"})
        assert [r["step"] for r in read_log(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 4]
        run.cut_back(-1)
        assert read_log(tmp_path / "metrics.jsonl") == []


def test_appending_after_a_torn_line_keeps_every_line_valid(tmp_path):
    with Workdir(tmp_path, CONFIG) as run:
        run.append_metrics({"step": 0, "kind": "train"})
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"step": 1, "lo')
        run.append_metrics({"step": 1, "kind": "train"})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_killed_while_appending_leaves_whole_lines_and_at_most_one_torn(tmp_path):
    writer = in_another_process(
        """
        import sys
        from experiments.workdir.workdir import Workdir
        run = Workdir(sys.argv[1], {"seed": 0})
        print("ready", flush=True)
        step = 0
        while True:
            run.append_metrics({"step": step, "kind": "evaluation", "name": "a", "data": "x" * 5000})
            step += 1
        """,
        tmp_path,
    )
    writer.stdout.readline()
    try:
        deadline = time.monotonic() + 30
        while len(read_log(tmp_path / "metrics.jsonl")) <= 20 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        writer.kill()
        writer.wait()
    with Workdir(tmp_path, {"seed": 0}) as run:
        run.cut_back(15)
    assert [r["step"] for r in read_log(tmp_path / "metrics.jsonl")] == list(range(16))


def test_a_full_disk_leaves_whole_files(tmp_path):
    # Files that cannot grow past 4 kB cut a write short as a full disk does.
    writer = in_another_process(
        """
        import resource, signal, sys
        from experiments.workdir.workdir import Workdir
        run = Workdir(sys.argv[1], {"seed": 0})
        run.write_results({"before": {"accuracy": 0.25}})
        run.append_metrics({"step": 0, "kind": "evaluation", "name": "a", "data": "x" * 3000})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        for write, record in (
            (run.write_results, {"text": "x" * 9000}),
            (run.append_metrics, {"step": 1, "kind": "evaluation", "name": "a", "data": "x" * 3000}),
        ):
            try:
                write(record)
            except OSError as error:
                print(error, flush=True)
        run.append_metrics({"step": 1, "kind": "train"})  # what fits goes on
        """,
        tmp_path,
    )
    said, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    about_results, about_metrics = said.splitlines()
    assert re.search(r"results\.json could not be written .*; it is as it was", about_results)
    assert re.search(r"metrics\.jsonl could not be written to .*; nothing was added", about_metrics)
    assert json.loads((tmp_path / "results.json").read_text()) == {"before": {"accuracy": 0.25}}
    assert [r["step"] for r in read_log(tmp_path / "metrics.jsonl")] == [0, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "lock", "metrics.jsonl", "results.json",
    ]  # fmt: skip


def test_environment_says_what_ran():
    found = environment()
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["versions"]["numpy"] == np.__version__
    assert found["device_count"] >= 1
    assert found["device"]
    assert found["commit"] == "unknown" or len(found["commit"]) == 40


def test_environment_outside_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "outer" / "experiments" / "machine"
    package.mkdir(parents=True)
    monkeypatch.setattr(environment_module, "__file__", str(package / "environment.py"))
    assert environment()["commit"] == "unknown"
    # Inside another project's checkout, its commit is not ours.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert environment()["commit"] == "unknown"
