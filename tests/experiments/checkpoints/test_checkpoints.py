"""Checkpoints: exact, kept by the stated rule, and sound under kills and damage."""

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
from experiments.checkpoints.checkpoints import Checkpoints, abstract, restore_params
from experiments.checkpoints.files import UnreadableCheckpoint, find_step

from .checkpoint_states import assert_same, new_state, on_disk, update

ROOT = Path(checkpoints.__file__).resolve().parent.parent.parent


def test_a_resumed_run_ends_bit_identical(tmp_path):
    noise = [jnp.float32(x) for x in np.random.default_rng(0).normal(size=8)]
    state = new_state()
    with Checkpoints(tmp_path / "c") as saved:
        for i, n in enumerate(noise):
            if i == 4:
                run_state = {"seed": 7, "iterator": {"position": [1, 2], "x": 0.1}, "none": None}
                saved.save(4, state, run_state)
            state = update(state, n)
    like = new_state(seed=1)
    with Checkpoints(tmp_path / "c") as saved:
        restored = saved.restore_latest(abstract(like))
    assert restored.step == 4
    assert restored.run_state == {
        "seed": 7,
        "iterator": {"position": [1, 2], "x": 0.1},
        "none": None,
    }
    assert jax.tree.structure(restored.state) == jax.tree.structure(like)
    resumed = restored.state
    for n in noise[4:]:
        resumed = update(resumed, n)
    assert_same(resumed, state)


def test_shapes_without_sharding_are_enough(tmp_path):
    state = new_state()
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state, {})
        restored = saved.restore("final", jax.eval_shape(new_state))
    assert_same(restored.state, state)


def test_the_state_may_be_donated_at_once(tmp_path):
    state = {"w": jnp.arange(2_000_000, dtype=jnp.float32)}
    like = abstract(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state, {})
        overwritten = overwrite(overwrite(state))
        jax.block_until_ready(overwritten)
        restored = saved.restore(1, like)
    np.testing.assert_array_equal(
        restored.state["w"], np.arange(2_000_000, dtype=np.float32), strict=True
    )


def test_the_latest_and_the_best_stay(tmp_path):
    state = {"w": jnp.zeros(3)}
    accuracies = {1: 0.1, 2: 0.9, 3: None, 4: 0.5, 5: float("nan"), 6: 0.4, 7: None}
    with Checkpoints(tmp_path, max_to_keep=2) as saved:
        assert saved.latest_step() is None
        assert saved.best_step() is None
        for step, accuracy in accuracies.items():
            saved.save(step, {"w": state["w"] + step}, {"step": step}, accuracy)
        saved.wait()
        assert on_disk(tmp_path) == [2, 6, 7]
        assert (saved.latest_step(), saved.best_step()) == (7, 2)
    with Checkpoints(tmp_path, max_to_keep=1) as saved:  # a later session knows the best too
        saved.save(8, state, {}, 0.9)  # as good, and later
        saved.wait()
        assert on_disk(tmp_path) == [8]
        saved.save(9, state, {}, 0.2)
        saved.save(10, state, {}, 0.3)
        saved.wait()
        assert on_disk(tmp_path) == [8, 10]
        assert saved.restore("best", abstract(state)).step == 8
        assert saved.restore("final", abstract(state)).step == 10
    assert (find_step(tmp_path, "best"), find_step(tmp_path, "final")) == (8, 10)


def test_without_keep_best_only_the_latest_stay(tmp_path):
    with Checkpoints(tmp_path, max_to_keep=2, keep_best=False) as saved:
        for step in range(1, 5):
            saved.save(step, {"w": jnp.zeros(3)}, {}, 1 / step)
        saved.wait()
        assert on_disk(tmp_path) == [3, 4]
        assert saved.best_step() == 3


def test_the_latest_can_be_written_anew_with_its_accuracy(tmp_path):
    state = {"w": jnp.arange(3.0)}
    with Checkpoints(tmp_path) as saved:
        saved.save(1, {"w": jnp.zeros(3)}, {"n": 1}, 0.4)
        saved.save(2, state, {"n": 2})
        assert saved.best_step() == 1
        saved.replace(2, state, {"n": 3}, 0.5)
        saved.wait()
        assert (saved.latest_step(), saved.best_step()) == (2, 2)
        assert saved.restore("best", abstract(state)).run_state == {"n": 3}
    assert on_disk(tmp_path) == [1, 2]


def test_refusals(tmp_path):
    state = {"w": jnp.zeros(3)}
    with Checkpoints(tmp_path) as saved:
        assert saved.restore_latest(abstract(state)) is None
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            saved.restore("final", abstract(state))
        for bad in ({"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": b"x"}):
            with pytest.raises(TypeError, match="JSON"):
                saved.save(1, state, bad)
        saved.save(2, state, {})
        with pytest.raises(FileNotFoundError, match="none is the best"):
            saved.restore("best", abstract(state))
        for step in (1, 2):
            with pytest.raises(ValueError, match="is not after 2"):
                saved.save(step, state, {})
    with pytest.raises(ValueError, match="max_to_keep=0"):
        Checkpoints(tmp_path, max_to_keep=0)


def test_a_save_that_fails_is_an_error_and_the_one_before_stays(tmp_path):
    code = """
        import resource, signal, sys
        import jax, jax.numpy as jnp
        from experiments.checkpoints.checkpoints import Checkpoints, abstract
        saved = Checkpoints(sys.argv[1], max_to_keep=1)
        state = {"w": jax.random.normal(jax.random.key(0), (100_000,))}
        saved.save(1, state, {}, accuracy=0.5)
        saved.wait()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
        try:
            saved.save(2, state, {}, accuracy=0.6)
            saved.wait()
        except OSError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert saved.latest_step() == 1 and saved.best_step() == 1
        assert saved.restore_latest(abstract(state)).step == 1
        saved.close()
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "could not be written" in process.stdout
    assert "latest whole one is 1" in process.stdout
    assert on_disk(tmp_path) == [1]


def test_restores_onto_the_shardings_asked_for(tmp_path):
    code = """
        import sys
        import jax, jax.numpy as jnp, numpy as np, optax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from distill.train.state import create_state
        from experiments.checkpoints.checkpoints import Checkpoints, abstract, restore_params
        def state(mesh, spec):
            place = NamedSharding(mesh, spec)
            params = {"w": jax.device_put(jnp.arange(64.0).reshape(8, 8), place)}
            return create_state(params, optax.adam(1e-3))
        one = state(jax.make_mesh((4, 2), ("fsdp", "tensor")), P("fsdp", "tensor"))
        other = state(jax.make_mesh((8,), ("fsdp",)), P(None, "fsdp"))
        with Checkpoints(sys.argv[1]) as saved:
            saved.save(1, one, {})
            for like in (one, other):
                restored = saved.restore("final", abstract(like)).state
                for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True):
                    assert x.sharding == y.sharding, (x.sharding, y.sharding)
                    assert np.array_equal(x, y)
        params, step = restore_params(sys.argv[1], "final")
        assert len(params["w"].sharding.device_set) == 1
        print("ok", step)
    """
    flags = "--xla_force_host_platform_device_count=8"
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.stdout.split() == ["ok", "1"], process.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_params_alone(tmp_path):
    state = new_state()
    with Checkpoints(tmp_path) as saved:
        saved.save(3, state, {}, accuracy=0.5)
        saved.wait()
        params, step = restore_params(tmp_path, "best")
        assert step == 3
        assert_same(params, state.params)
    shutil.rmtree(tmp_path / "3" / "state" / "d")
    with pytest.raises(UnreadableCheckpoint, match="3"):
        restore_params(tmp_path, "final")
    with pytest.raises(FileNotFoundError):
        restore_params(tmp_path, 9)


def test_orbax_says_nothing_in_a_normal_run(tmp_path):
    code = """
        import sys
        import jax.numpy as jnp
        from absl import logging
        logging.set_verbosity(logging.INFO)
        from experiments.checkpoints.checkpoints import Checkpoints, abstract
        state = {"w": jnp.zeros(3)}
        with Checkpoints(sys.argv[1]) as saved:
            saved.save(1, state, {})
            saved.restore_latest(abstract(state))
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = [
        line
        for line in process.stderr.splitlines()
        if "orbax" in line.lower() or "checkpoint" in line.lower()
    ]
    assert said == []
