"""Several processes on one machine equal one: gradients, metrics, evaluation, checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.checkpoints.checkpoints import restore_params
from experiments.machine.processes import any_process, fetch, first_does, initialize, place_rows
from experiments.workdir.workdir import read_log, read_results

from ...fake_devices import run_processes

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.mark.slow
def test_two_processes_place_gather_agree_and_differentiate_as_one(tmp_path):
    """In processes of their own, two devices in each."""
    assert run_processes(str(SCRIPT), str(tmp_path)).endswith("equal\n")


def test_a_process_alone_needs_none_of_it(monkeypatch):
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    initialize()
    assert first_does(lambda: 3) == 3
    assert any_process(True) and not any_process(False)
    batch = place_rows({"x": np.arange(6).reshape(3, 2)}, None)
    assert isinstance(batch["x"], jax.Array)
    np.testing.assert_array_equal(fetch(batch)["x"], [[0, 1], [2, 3], [4, 5]])


def test_half_of_the_flags_are_refused():
    with pytest.raises(ValueError, match="go together"):
        initialize("localhost:1234", 2)
    with pytest.raises(ValueError, match="--process_id=2 must lie in 0 to 1"):
        initialize("localhost:1234", 2, 2)


COMMON = (
    "--config.steps=3",
    "--config.batch_size=8",
    "--config.checkpoint.every=1",
    "--config.checkpoint.max_to_keep=3",
    "--config.samples.every=1",
    "--config.data.validation.size=8",
    "--config.data.test.size=8",
    "--config.data.long.name=",
    "--config.evaluation.max_tokens=32",
    "--config.evaluation.batch_size=8",
)
OPD = ("--config=configs/opd.py:smoke", "--config.rollout.max_total=32")
MOTAB = (
    "--config=configs/motab.py:smoke",
    "--config.synthesis.trajectories=16",
    "--config.synthesis.slots=4",
    "--config.motab.max_total=48",
    "--config.motab.max_correction=24",
    "--config.motab.safe_loss=reverse_kl",
)
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}


def train(arm: tuple[str, ...], workdir: Path, count: int, devices: int, **mesh: int) -> None:
    where = [f"--config.mesh.{axis}={n}" for axis, n in mesh.items()]
    command = ("-m", "experiments.run", *arm, *COMMON, *where, f"--workdir={workdir}")
    shown = run_processes(*command, count=count, devices=devices)
    assert ("Arrays on" in shown) == (count * devices > 1)
    assert "change: " in shown


def assert_same_run(a: Path, b: Path, steps: tuple[int, ...] = (1, 2, 3)) -> None:
    """The logs, the samples, and every parameter after each step."""
    ours, theirs = (
        [r for r in read_log(path / "metrics.jsonl") if r["step"] in (0, *steps)] for path in (a, b)
    )
    assert [(r["step"], r["kind"]) for r in ours] == [(r["step"], r["kind"]) for r in theirs]
    for x, y in zip(ours, theirs, strict=True):
        assert x.keys() == y.keys()
        for name in x.keys() - {"seconds", "tokens_per_second", "pass_at_k", "interval"}:
            if isinstance(x[name], float):
                assert x[name] == pytest.approx(y[name], rel=1e-5, abs=1e-6), (x["step"], name)
            else:
                assert x[name] == y[name], (x["step"], name)
    for name in ("before-test", "after-test"):
        texts = [
            [json.loads(line)["text"] for line in (p / "samples" / f"{name}.jsonl").open()]
            for p in (a, b)
        ]
        assert texts[0] == texts[1]
    for step in steps:
        one, two = (restore_params(p / "checkpoints", step)[0] for p in (a, b))
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True
        ):
            error = np.abs(x - y).max() / np.abs(x).max()
            assert error < 1e-4, (step, jax.tree_util.keystr(path), error)


@pytest.mark.slow
@pytest.mark.parametrize("arm", [OPD, MOTAB], ids=["opd", "motab"])
def test_two_processes_equal_one_and_either_goes_on_where_the_other_stopped(
    arm, tmp_path, monkeypatch
):
    for name, value in EXACT.items():
        monkeypatch.setenv(name, value)
    one, two = tmp_path / "one", tmp_path / "two"
    train(arm, one, 1, 4, data=2, fsdp=2)
    train(arm, two, 2, 2, data=2, fsdp=2)
    assert_same_run(one, two)
    assert read_results(two)["device_count"] == 4
    # Another mesh, another number of processes.
    for before, count, devices, mesh in (
        (one, 2, 1, {"data": 1, "fsdp": 2, "tensor": 1}),
        (two, 1, 1, {"data": 1, "fsdp": 1, "tensor": 1}),
    ):
        after = tmp_path / f"{before.name}-resumed"
        shutil.copytree(before, after)
        (after / "results.json").unlink()
        shutil.rmtree(after / "checkpoints" / "3")
        train(arm, after, count, devices, **mesh)
        assert_same_run(before, after)
