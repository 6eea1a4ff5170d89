"""The papers' settings: what they say, and that they fit the meshes that docs/presets.md names."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

import models
from atesd import ControllerSettings, LossSettings, ReferenceWidths
from atesd.prompts import DEFAULT_TEMPLATE
from configs import atesd, motab, papers
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.sharding import state_shardings
from distill.train.state import create_state
from experiments.data.catalogue import CATALOGUE
from experiments.data.filters import Filter
from experiments.pair.pair import lora_of
from experiments.workdir.workdir import flatten
from models.decoding.decode import init_cache
from motab import MotabSettings

from ...documents import ROOT
from ...qwen3_sizes import SIZES, write_model

AXES = ("data", "fsdp", "tensor")
# Of docs/presets.md: devices by axis, GB of one, and rows that are written at the same time on all.
MESHES = {
    "configs/motab.py:qwen3_32b_to_4b": ((1, 16, 4), 95, 128),
    "configs/atesd.py:qwen3_1_7b": ((1, 8, 1), 80, 32),
    "configs/atesd.py:qwen3_4b": ((1, 8, 1), 80, 32),
    "configs/atesd.py:qwen3_8b": ((1, 8, 1), 80, 32),
}


def preset(name: str):
    module, _, arg = name.partition(":")
    return {"configs/motab.py": motab, "configs/atesd.py": atesd}[module].get_config(arg)


def held(tree: Any, places: Any) -> int:
    """Bytes on one device."""
    return sum(
        jax.tree.leaves(
            jax.tree.map(
                lambda x, place: math.prod(place.shard_shape(x.shape)) * x.dtype.itemsize,
                tree,
                places,
            )
        )
    )


def cache_bytes(
    architecture: models.ModelConfig, rows: int, length: int, mesh: AbstractMesh
) -> int:
    """Of keys and values of `rows` rows of `length` positions, on one device."""
    cache = jax.eval_shape(lambda: init_cache(architecture, rows, length))
    place = NamedSharding(mesh, P(("data", "fsdp"), "tensor", None, None))
    return held(cache, jax.tree.map(lambda _: place, cache))


def weights(name: str, directory) -> dict[str, float]:
    """GB on a device, by what it is."""
    config, (sizes, _, rows) = preset(name), MESHES[name]
    mesh = AbstractMesh(sizes, AXES)
    assert config.mesh.tensor == sizes[2] and config.mesh.fsdp in (-1, sizes[1])

    def load(path: str, **fields: Any) -> models.ModelConfig:
        model = path.rpartition("/")[2]
        target = directory / model
        return models.load_config(
            target if target.exists() else write_model(directory, model)
        ).replace(**fields)

    student = load(config.student.path, dtype=config.student.dtype, lora=lora_of(config.student))
    params = models.abstract(student)
    trainable = models.trainable(params, student) if student.lora is not None else None
    optimizer = make_optimizer(OptimizerSettings(**config.optimizer), config.steps, trainable)
    state = jax.eval_shape(lambda p: create_state(p, optimizer), params)
    places = state_shardings(state, optimizer, student, mesh)
    found = {
        "student": held(state.params, places.params),
        "optimiser": held(state.opt_state, places.opt_state),
        "caches": 0,
    }
    if "teacher" in config:
        teacher = load(config.teacher.path, dtype=config.teacher.dtype)
        theirs = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, teacher.dtype), models.abstract(teacher)
        )
        found["teacher"] = held(theirs, models.shardings(teacher, mesh))
        length = config.prompt.max_tokens + config.motab.max_total
        assert rows == config.synthesis.slots
        evaluated = (student, teacher)
        found["caches"] = sum(cache_bytes(m, rows, length, mesh) for m in evaluated)
    else:
        assert rows == config.batch_size
        length = config.prompt.max_tokens + config.rollout.max_total
        evaluated = (student.replace(lora=None),)
        found["caches"] = cache_bytes(*evaluated, rows, length, mesh)
    # Rollouts and evaluations take turns.
    e = config.evaluation
    tested = (
        cache_bytes(m, e.batch_size, config.prompt.max_tokens + e.max_tokens, mesh)
        for m in evaluated
    )
    found["caches"] = max(found["caches"], *tested)
    return {what: n / 1e9 for what, n in found.items()}


@pytest.mark.parametrize("name", MESHES)
def test_it_fits_the_mesh_that_the_page_names_and_weighs_what_it_says(name, tmp_path):
    found, (_, memory, _) = weights(name, tmp_path), MESHES[name]
    # Half of a device is left for gradients, activations and copies.
    assert sum(found.values()) < memory / 2
    page = (ROOT / "docs" / "presets.md").read_text()
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", page, re.MULTILINE)
    mesh, *numbers = [cell.strip() for cell in row.split("|")]
    assert mesh.startswith(str(math.prod(MESHES[name][0])))
    shown = dict(zip(("student", "optimiser", "teacher", "caches"), numbers, strict=True))
    for what, text in shown.items():
        assert text == (f"{found[what]:.2f}" if what in found else "—"), (what, found)


def test_sizes_are_those_of_the_released_models(tmp_path):
    counted = {
        name: sum(
            math.prod(x.shape)
            for x in jax.tree.leaves(
                models.abstract(models.load_config(write_model(tmp_path, name)))
            )
        )
        for name in SIZES
    }
    billions = {name: round(n / 1e9, 2) for name, n in counted.items()}
    assert billions == {
        "Qwen3-1.7B": 1.72, "Qwen3-4B": 4.02, "Qwen3-4B-Instruct-2507": 4.02, "Qwen3-8B": 8.19,
        "Qwen3-32B": 32.76,
    }  # fmt: skip


def test_motab_is_set_as_published():
    config = preset("configs/motab.py:qwen3_32b_to_4b")
    settings = MotabSettings(**config.motab)
    assert settings == MotabSettings()  # whose defaults are the paper's
    assert OptimizerSettings(**config.optimizer) == OptimizerSettings()
    assert config.seed == 42 and config.batch_size == 32
    assert config.synthesis.mode == "offline"
    assert config.synthesis.trajectories == 800 * config.synthesis.trajectories_per_prompt == 4000
    longest = config.prompt.max_tokens + settings.max_total
    assert config.synthesis.pack_to == longest
    e = config.evaluation
    assert (e.samples, e.temperature, e.top_p, e.max_tokens) == (8, 0.6, 0.95, 32768)


@pytest.mark.parametrize("size", papers.ATESD_SIZES)
def test_atesd_is_set_as_published_and_opsd_s(size):
    config = preset(f"configs/atesd.py:qwen3_{size}")
    assert (config.steps, config.batch_size, config.checkpoint.every) == (100, 32, 20)
    o = config.optimizer
    assert (o.learning_rate, o.clip_norm) == (5e-6, 0.1)
    lora = lora_of(config.student)
    assert (lora.rank, lora.alpha, len(lora.targets)) == (64, 128.0, 7)
    r = config.rollout
    assert (r.student_temperature, r.student_top_p, r.student_top_k, r.max_total) == (
        1.1,
        0.95,
        20,
        1024,
    )
    loss = LossSettings(**config.loss)
    assert (loss.divergence, loss.temperature, loss.clip) == ("forward_kl", 1.1, "summand")
    assert loss.clip_at == (0.06 if size == "8b" else 0.05)
    assert ControllerSettings(**config.controller).look_ahead == 20
    x = config.exposure
    assert (config.student.thinking, x.thinking) == ("off", "on")
    assert x.template == DEFAULT_TEMPLATE
    ReferenceWidths(x.max_head, x.max_reasoning, x.max_answer, x.max_tail)
    e = config.evaluation
    assert (e.samples, e.temperature, e.top_p, e.max_tokens) == (12, 1.0, 0.95, 38912)


@pytest.mark.parametrize("name", MESHES)
def test_its_data_are_known_by_name_and_held_apart(name):
    data = preset(name).data
    named = {d.name for d in data.values() if d.name}
    assert named <= set(CATALOGUE)
    measured = {data[split].name for split in ("validation", "test", "long")} - {""}
    assert measured <= set(data.train.filter.against) <= set(CATALOGUE)
    Filter(**data.train.filter)


@pytest.mark.parametrize("name", MESHES)
def test_it_has_the_fields_that_others_have(name):
    module, _, _ = name.partition(":")
    others = {"configs/motab.py": motab, "configs/atesd.py": atesd}[module].get_config("smoke")
    assert flatten(preset(name).to_dict()).keys() == flatten(others.to_dict()).keys()


@pytest.mark.parametrize("name", MESHES)
def test_the_docstring_has_the_published_numbers(name):
    numbers = {"motab": ("66.64", "34.17"), "atesd": ("44.35", "65.65", "67.13")}
    module = motab if "motab" in name else atesd
    for number in numbers[module.__name__.rpartition(".")[2]]:
        assert number in module.__doc__
