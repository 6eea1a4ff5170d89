"""Programs are compiled once: within a run, and by processes that follow each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import atesd, grpo, motab, opd
from experiments.config.read import read_config
from experiments.machine import compilation as compiled
from experiments.methods import make_method
from experiments.pair.pair import load_pair, start_student
from experiments.workdir.workdir import Workdir

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import jax, jax.numpy as jnp
from experiments.machine.compilation import Watch, keep_compiled
keep_compiled()
# However quick this processor compiles.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
found = []
jax.monitoring.register_event_listener(
    lambda event, **_: found.append(1) if event == "/jax/compilation_cache/cache_hits" else None
)
watch = Watch()
jax.jit(lambda x: jnp.sin(x @ x))(jnp.ones((4, 4)))
print(watch.programs, len(found))
"""


def test_a_second_process_reads_what_the_first_one_compiled(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    kept = []
    for first in (True, False):
        out = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True,
            text=True, check=True,
        ).stdout.split()  # fmt: skip
        programs, found = map(int, out)
        assert programs >= 1 and found == (0 if first else programs)
        (directory,) = (tmp_path / "motab").iterdir()
        assert directory.name.startswith("xla-")
        # jax keeps the time of the last use beside a program.
        kept.append({x.name for x in directory.iterdir() if x.name.endswith("-cache")})
    assert kept[0] == kept[1] and len(kept[0]) == programs


def test_the_environments_directory_is_used(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    before = jax.config.jax_compilation_cache_dir
    compiled.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == before


def test_another_processor_has_another_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = compiled.default_directory()
    assert here == compiled.default_directory() and here.parent == tmp_path / "motab"
    monkeypatch.setattr(compiled, "_processor", lambda: "flags: avx512")
    assert compiled.default_directory() != here


def test_a_watch_counts_programs_and_their_time():
    watch, later = compiled.Watch(), None
    f = jax.jit(lambda x: jnp.tanh(x) * 3 + x[::-1])
    f(jnp.ones(3))
    assert watch.programs >= 1 and watch.seconds > 0
    later = compiled.Watch()
    f(jnp.ones(3))
    assert later.programs == 0 and later.seconds == 0


ONLINE = [
    (motab, "online", {"motab.max_total": 96, "motab.max_correction": 48}),
    pytest.param(opd, "", {"rollout.max_total": 48}, marks=pytest.mark.slow),
    pytest.param(atesd, "", {"rollout.max_total": 48, "exposure.probe_size": 4}, marks=pytest.mark.slow),
    pytest.param(grpo, "", {"grpo.max_total": 48}, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("module", "arg", "fields"), ONLINE)
def test_nothing_is_compiled_after_the_first_steps(module, arg, fields, tmp_path):
    """Neither lengths of texts, nor breaches, nor decisions make a new program."""
    config = module.get_config(arg)
    config.batch_size, config.data.train.size = 8, 64
    config.data.validation.size = 8
    config.update_from_flattened_dict(fields)
    pair = load_pair(read_config(config))
    with Workdir(tmp_path / "run", config) as workdir:
        method = make_method(read_config(config), pair, workdir)
        state = method.init(start_student(pair, config.seed))
        programs = []
        for step in range(7):
            watch = compiled.Watch()
            outcome = method.step(state, next(method.batches), step)
            state = outcome.state
            jax.block_until_ready((state, outcome.metrics))
            programs.append(watch.programs)
    assert programs[0] > 0 and programs[2:] == [0] * 5
