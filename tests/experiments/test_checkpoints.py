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
import optax
import pytest

from distill.state import create_state
from experiments import checkpoints
from experiments.checkpoints import (
    Checkpoints,
    UnreadableCheckpoint,
    abstract,
    find_step,
    restore_params,
)

ROOT = Path(checkpoints.__file__).resolve().parent.parent


def optimizer():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 20)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.add_decayed_weights(0.1), {"w": True, "layers": False}),
        optax.adam(schedule, mu_dtype=jnp.bfloat16),
    )


def new_state(seed=0):
    key = jax.random.key(seed)
    params = {
        "w": jax.random.normal(key, (8, 4)),
        "layers": {"q": jax.random.normal(key, (2, 4, 4), jnp.bfloat16), "empty": {}},
    }
    method = {
        "rollout": jax.tree.map(jnp.copy, params),
        "nothing": {},
        "flags": jnp.array([True, False]),
        "ids": jnp.arange(5, dtype=jnp.uint32),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45]),
    }
    return create_state(params, optimizer(), method)


@jax.jit
def update(state, noise):
    grads = jax.tree.map(lambda p: (p * 0.3 + noise).astype(p.dtype), state.params)
    changes, opt_state = optimizer().update(grads, state.opt_state, state.params)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, changes),
        opt_state=opt_state,
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert x.sharding == y.sharding
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def on_disk(directory):
    return sorted(int(p.name) for p in Path(directory).iterdir() if p.name.isdigit())


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


def test_killed_while_saving_the_one_before_is_used(tmp_path, caplog):
    code = """
        import os, signal, sys, threading, time
        import jax.numpy as jnp
        from pathlib import Path
        from experiments.checkpoints import Checkpoints
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
@pytest.mark.parametrize("damage", ["cut", "zeroed", "emptied", "deleted"])
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
        from experiments.checkpoints import Checkpoints, abstract
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
        from distill.state import create_state
        from experiments.checkpoints import Checkpoints, abstract, restore_params
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
        from experiments.checkpoints import Checkpoints, abstract
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
