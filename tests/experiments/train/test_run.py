"""The command from end to end on the embedded models: results, resuming, bad input. For kills see `tests/soak`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import motab as motab_config
from configs import pretrain as pretrain_config
from experiments.checkpoints.checkpoints import restore_params
from experiments.command.config_file import ConfigFile
from experiments.train.loop import run
from experiments.workdir.workdir import read_log

ROOT = Path(__file__).resolve().parents[3]


def small(arg: str = "online", steps: int = 6) -> ConfigDict:
    """A run of seconds."""
    config = motab_config.get_config(arg)
    config.steps = steps
    config.batch_size = 8
    config.data.train.size = 64
    config.data.validation.size = 8
    config.data.test.size = 16
    config.data.long.size = 8
    config.evaluation.batch_size = 16
    config.evaluation.max_tokens = 112
    config.motab.max_total = 96
    config.motab.max_correction = 48
    config.synthesis.sync_every = steps - 1  # the last update alone has fresh trajectories
    config.checkpoint.every = 2
    config.samples.every = 2
    return config


def same_params(a: Path, b: Path) -> bool:
    left, step = restore_params(a / "checkpoints", "final")
    right, other = restore_params(b / "checkpoints", "final")
    assert step == other
    equal = jax.tree.map(lambda x, y: np.array_equal(x, y), left, right)
    return all(jax.tree.leaves(equal))


def steps_logged(workdir: Path) -> list[int]:
    return [r["step"] for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "train"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted online run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, run(small(), workdir)


def test_a_workdir_holds_what_it_should(finished):
    workdir, results = finished
    assert json.loads((workdir / "results.json").read_text()) == results
    for name in ("before", "after", "teacher"):
        row = results[name]
        assert 0 <= row["interval"][0] <= row["accuracy"] <= row["interval"][1] <= 1
        assert row["n"] == 16
        assert row["mean_length"] > 10
        assert 0 <= row["truncation_rate"] <= 1
    assert results["teacher"]["accuracy"] > 0.9
    assert {"seed", "commit", "versions", "wall_seconds"} <= set(results)
    assert results["long"]["teacher"]["n"] == 8
    samples = [json.loads(x) for x in (workdir / "samples" / "after-test.jsonl").open()]
    right = [sample["right"] for sample in samples]
    assert np.mean(right) == pytest.approx(results["after"]["accuracy"])
    synthesis = results["synthesis"]
    assert synthesis["trajectories"] == 48
    assert set(synthesis["tokens"]) == {"student", "flawed", "revision", "teacher"}
    assert steps_logged(workdir) == [1, 2, 3, 4, 5, 6]
    assert json.loads((workdir / "config.json").read_text())["motab"]["gamma_0"] == 0.7
    assert (workdir / "report.png").read_bytes().startswith(b"\x89PNG")
    kinds = {r["kind"] for r in read_log(workdir / "metrics.jsonl")}
    assert kinds == {"train", "validation", "evaluation"}


def test_sampled_trajectories_are_readable_and_consistent(finished):
    records = read_log(finished[0] / "trajectories.jsonl")
    assert {r["step"] for r in records} == {1, 3, 5}
    for record in records:
        assert len(record["values"]) == len(record["boundaries"])
        unsafe = [
            i for i, (v, b) in enumerate(zip(record["values"], record["boundaries"], strict=True))
            if v < b
        ]  # fmt: skip
        assert record["breach"] == (unsafe[0] if unsafe else -1)
        written = [p["text"] for p in record["parts"] if p["source"] in ("student", "flawed")]
        assert len(record["steps"]) == len(record["values"])
        assert "".join(written).startswith("".join(record["steps"]))
        sources = [part["source"] for part in record["parts"]]
        if record["breach"] >= 0 and not record["dropped"]:
            assert sources[-2:] == ["revision", "teacher"]
            assert record["parts"][-2]["text"].endswith("However,\n\n")
            assert record["depth"] == record["breach"] - record["root"]
        else:
            assert sources == ["student"]
    assert any(record["breach"] >= 0 for record in records)


def test_a_complete_run_is_not_repeated(finished, capsys):
    workdir, results = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    assert run(small(), workdir) == results
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert "is complete" in capsys.readouterr().out


def test_another_config_on_the_same_workdir_is_refused(finished):
    config = small()
    config.motab.gamma_0 = 0.5
    with pytest.raises(ValueError, match=r"motab\.gamma_0: 0\.7 in the workdir, 0\.5 now"):
        run(config, finished[0])


def start(config_args: list[str], workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.run", "--config", *config_args]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_sync_every_resumes_with_the_lagging_weights(tmp_path):
    """The rollout's own copy is part of the checkpoint."""
    config = small(steps=4)
    config.synthesis.sync_every = 3
    config.checkpoint.every = 1
    run(config, tmp_path / "whole")
    run(config, tmp_path / "cut")
    # Forget all but the checkpoint of step 3 and run again.
    (tmp_path / "cut" / "results.json").unlink()
    last = tmp_path / "cut" / "checkpoints" / "4"
    last.rename(tmp_path / "gone")
    run(config, tmp_path / "cut")
    assert same_params(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_offline_synthesises_once_and_trains_on_the_file(tmp_path):
    config = small("")
    config.synthesis.trajectories = 24
    results = run(config, tmp_path / "a")
    lines = (tmp_path / "a" / "synthesis.jsonl").read_text().splitlines()
    assert len(lines) == 25
    header, first = json.loads(lines[0]), json.loads(lines[1])
    assert header["kind"] == "header"
    length = len(first["token_ids"])
    assert len(first["source"]) == len(first["likelihood_weights"]) == length
    ids = [json.loads(line)["sample_id"] for line in lines[1:]]
    assert len(set(ids)) == 24
    assert results["synthesis"]["trajectories"] == 48

    config = small("")
    config.synthesis.file = str(tmp_path / "a" / "synthesis.jsonl")
    config.motab.loss_on = "response"
    with pytest.raises(ValueError, match="another motab"):
        run(config, tmp_path / "b")


@pytest.mark.slow
def test_an_interrupted_synthesis_is_completed_not_repeated(tmp_path):
    config = small("")
    config.synthesis.trajectories = 24
    run(config, tmp_path / "a")
    whole = (tmp_path / "a" / "synthesis.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "b").mkdir()
    torn = b"".join(lines[:12]) + lines[12][:50]
    (tmp_path / "b" / "synthesis.jsonl").write_bytes(torn)
    run(config, tmp_path / "b")
    # The rows that were in flight were written again, in other company: probabilities may differ in
    # their last digits, what trains does not.
    found = (tmp_path / "b" / "synthesis.jsonl").read_bytes().splitlines(keepends=True)
    assert found[:12] == lines[:12]
    trained = ("sample_id", "token_ids", "source", "likelihood_weights", "divergence_weights")

    def rows(lines):
        records = sorted(map(json.loads, lines[1:]), key=lambda r: r["sample_id"])
        return [[r[name] for name in trained] for r in records]

    assert rows(found) == rows(lines)
    assert same_params(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_pretraining_from_random_weights(tmp_path):
    config = pretrain_config.get_config("student")
    config.steps = 3
    config.data.test.size = 8
    config.data.validation.size = 8
    config.evaluation.max_tokens = 16
    results = run(config, tmp_path)
    assert results["before"] is None
    assert results["after"]["n"] == 8
    losses = [r["loss"] for r in read_log(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert losses[0] > losses[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/motab.py", "--config.motab.gama_0=0.5"], "gama_0"),
        (["configs/motab.py", "--config.student.path=/nowhere"], "/nowhere"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["configs/motab.py:nightly"], "the variants are"),
                (["configs/motab.py", "--config.motab.signal=entropy"], "motab.signal"),
                (["configs/motab.py", "--config.method=ppo"], "method="),
                (["configs/motab.py", "--config.mesh.data=3"], "does not fill"),
                (["configs/motab.py", "--config.prompt.max_tokens=4"], "max_prompt_tokens"),
            )
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, message, tmp_path):
    process = start(arguments, tmp_path / "run")
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert message in output
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not steps_logged(tmp_path / "run")


def test_default_workdirs():
    config = ConfigDict()
    assert ConfigFile("configs/motab.py", config).name == "motab"
    assert ConfigFile("configs/motab.py:smoke", config).name == "motab-smoke"
