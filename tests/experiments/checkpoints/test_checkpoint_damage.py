"""Checkpoints after kills and damage."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.checkpoints import checkpoints
from experiments.checkpoints.checkpoints import Checkpoints, abstract
from experiments.checkpoints.files import UnreadableCheckpoint

from .checkpoint_states import assert_same, on_disk

ROOT = Path(checkpoints.__file__).resolve().parent.parent.parent


def test_killed_while_saving_the_one_before_is_used(tmp_path, caplog):
    code = """
        import os, signal, sys, threading, time
        import jax.numpy as jnp
        from pathlib import Path
        from experiments.checkpoints.checkpoints import Checkpoints
        directory = Path(sys.argv[1])
        saved = Checkpoints(directory)
        state = lambda x: {"w": jnp.arange(12_000_000) * x, "v": jnp.full((7,), x)}
        saved.save(1, state(1), {"step": 1})
        saved.wait()
        ready = state(2)
        ready["w"].block_until_ready()
        def kill():
            while not list(directory.glob("2.*/state*/ocdbt*/d/*")):
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=kill).start()
        saved.save(2, ready, {"step": 2})
        saved.wait()
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        timeout=120,
        check=False,
    )
    assert process.returncode == -9
    assert not (tmp_path / "2").exists(), "killed too late to show anything"
    unfinished = list(tmp_path.glob("2.*"))
    assert unfinished
    like = {"w": jnp.zeros(12_000_000, jnp.int32), "v": jnp.zeros(7, jnp.int32)}
    with Checkpoints(tmp_path) as saved:
        assert unfinished[0].name in caplog.text
        assert "was not finished" in caplog.text
        restored = saved.restore_latest(abstract(like))
        assert (restored.step, restored.run_state) == (1, {"step": 1})
        np.testing.assert_array_equal(restored.state["w"], np.arange(12_000_000))
        saved.save(2, restored.state, {"step": 2})  # the interrupted step can be saved again
        saved.wait()
        assert saved.restore_latest(abstract(like)).step == 2
    assert on_disk(tmp_path) == [1, 2]


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    key = jax.random.key(3)
    states = {
        step: {"w": jax.random.normal(key, (32, 32)) * step, "n": jnp.int32(step), "e": {}}
        for step in (1, 2)
    }
    with Checkpoints(directory) as saved:
        for step, state in states.items():
            saved.save(step, state, {"step": step}, accuracy=step / 10)
    return directory, states


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [*(pytest.param(x, marks=pytest.mark.slow) for x in ("cut", "emptied")), "zeroed", "deleted"],
)
def test_damage_to_any_file_is_seen_or_harmless(two_checkpoints, tmp_path, damage, caplog):
    original, states = two_checkpoints
    skipped = 0
    files = sorted(p.relative_to(original) for p in (original / "2").rglob("*") if p.is_file())
    for i, name in enumerate(files):
        directory = tmp_path / str(i)
        shutil.copytree(original, directory)
        content = (directory / name).read_bytes()
        if damage == "deleted":
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(
                {
                    "cut": content[: len(content) // 2],
                    "zeroed": bytes(len(content)),
                    "emptied": b"",
                }[damage]
            )
        caplog.clear()
        with Checkpoints(directory) as saved:
            restored = saved.restore_latest(abstract(states[1]))
            assert_same(restored.state, states[restored.step])
            assert restored.run_state == {"step": restored.step}
            if restored.step == 1:
                skipped += 1
                assert f"Skipping the damaged checkpoint {directory / '2'}" in caplog.text
                assert on_disk(directory) == [1]
                assert (directory / "2.corrupt").is_dir()
                assert saved.best_step() == 1
                saved.save(2, restored.state, {"step": 1}, accuracy=0.3)
                saved.wait()
                assert saved.restore_latest(abstract(states[1])).step == 2
        shutil.rmtree(directory)
    assert skipped >= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_anywhere_is_seen_or_harmless(two_checkpoints, tmp_path, caplog):
    """Array data, its index, the host's state, the accuracy: whatever is read is what was written."""
    original, states = two_checkpoints
    random = np.random.default_rng(0)
    skipped = set()
    files = sorted(p.relative_to(original) for p in (original / "2").rglob("*") if p.is_file())
    for i, name in enumerate(files):
        size = (original / name).stat().st_size
        for place in random.integers(0, size, min(size, 4)):
            directory = tmp_path / f"{i}-{place}"
            shutil.copytree(original, directory)
            content = bytearray((directory / name).read_bytes())
            content[place] ^= 1 << random.integers(8)
            (directory / name).write_bytes(content)
            with Checkpoints(directory) as saved:
                restored = saved.restore_latest(abstract(states[1]))
                assert_same(restored.state, states[restored.step])
                assert restored.run_state == {"step": restored.step}
                assert saved.best_step() == restored.step
                if restored.step == 1:
                    skipped.add(name)
            shutil.rmtree(directory)
    assert len(skipped) >= 4
    assert "not what was saved" in caplog.text or "Skipping the damaged checkpoint" in caplog.text


def test_array_data_that_reads_well_but_is_not_what_was_saved(two_checkpoints, tmp_path, caplog):
    """A checkpoint whose arrays are those of another: only its checksums can tell."""
    original, states = two_checkpoints
    shutil.copytree(original, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "2" / "state")
    shutil.copytree(tmp_path / "c" / "1" / "state", tmp_path / "c" / "2" / "state")
    with pytest.raises(UnreadableCheckpoint, match=r"not what was saved: n, w"):
        Checkpoints(tmp_path / "c").restore(2, abstract(states[1]))
    with Checkpoints(tmp_path / "c") as saved:
        assert saved.restore_latest(abstract(states[1])).step == 1
    assert "not what was saved" in caplog.text


def test_a_checkpoint_without_checksums_is_refused_and_left_alone(two_checkpoints, tmp_path):
    shutil.copytree(two_checkpoints[0], tmp_path / "c")
    (tmp_path / "c" / "2" / "run" / "metadata").write_text('{"step": 2}')
    with pytest.raises(ValueError, match="has no checksums") as caught:
        Checkpoints(tmp_path / "c")
    assert not isinstance(caught.value, UnreadableCheckpoint)
    assert on_disk(tmp_path / "c") == [1, 2]


def test_all_damaged_is_none(two_checkpoints, tmp_path):
    shutil.copytree(two_checkpoints[0], tmp_path / "c")
    for path in (tmp_path / "c").glob("*/state"):
        shutil.rmtree(path)
    with Checkpoints(tmp_path / "c") as saved:
        assert saved.restore_latest(abstract(two_checkpoints[1][1])) is None
        assert saved.latest_step() is None


def test_another_state_is_an_error_and_not_damage(two_checkpoints, tmp_path):
    directory, states = two_checkpoints
    like = abstract(states[1])
    others = {
        r"w: float32\[32, 32\] in the checkpoint, float32\[32, 16\] now": {
            **like,
            "w": jax.ShapeDtypeStruct((32, 16), jnp.float32),
        },
        r"w: float32\[32, 32\] in the checkpoint, bfloat16\[32, 32\] now": {
            **like,
            "w": jax.ShapeDtypeStruct((32, 32), jnp.bfloat16),
        },
        r"b: absent in the checkpoint, int32\[\] now": {**like, "b": like["n"]},
        r"n: int32\[\] in the checkpoint, absent now": {"w": like["w"], "e": {}},
    }
    with Checkpoints(directory) as saved:
        for message, other in others.items():
            with pytest.raises(ValueError, match=message) as caught:
                saved.restore_latest(other)
            assert not isinstance(caught.value, UnreadableCheckpoint)
        with pytest.raises(FileNotFoundError, match=r"no checkpoint 5 in .*, but 1, 2\."):
            saved.restore(5, like)
    assert on_disk(directory) == [1, 2]
