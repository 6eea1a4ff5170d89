"""The papers' settings: what they say, and that they fit the meshes that docs/presets.md names."""

from __future__ import annotations

import inspect
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
from experiments.config.read import read_config
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
    optimizer = make_optimizer(OptimizerSettings(**config.optimizer), config.steps)
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


# By field, what the papers say; written from their pages, not from the presets.
MOTAB_PAPER = {
    "method": "motab",
    "seed": 42,
    "batch_size": 32,
    "student.lora.rank": 0,
    # One template for both models, and no thinking.
    "student.thinking": "off",
    "teacher.thinking": "off",
    "motab.signal": "likelihood",
    "motab.gamma_0": 0.3,
    "motab.alpha": 1.0,
    "motab.boundary": "adaptive",
    "motab.entropy_top_k": 20,
    "motab.delimiter": ".\n\n",
    "motab.revision_text": "However,\n\n",
    "motab.student_temperature": 0.6,
    "motab.teacher_temperature": 0.6,
    "motab.max_step_tokens": 8192,
    "motab.max_total": 32768,
    "motab.max_correction": 32768,
    "motab.min_correction": 256,
    "motab.correction": "backtrack",
    "motab.stitch": True,
    "motab.loss_on": "eq11",
    "motab.safe_loss": "likelihood",
    "synthesis.mode": "offline",
    "synthesis.trajectories_per_prompt": 5,
    "synthesis.trajectories": 5 * 800,
    "optimizer.learning_rate": 5e-5,
    "optimizer.final_learning_rate": 1e-6,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_fraction": 0.05,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.95,
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.1,
    "optimizer.decay": "matrices",
    "optimizer.clip_norm": 1.0,
    "evaluation.samples": 8,
    "evaluation.temperature": 0.6,
    "evaluation.top_p": 0.95,
    "evaluation.max_tokens": 32768,
}
# OPSD's settings, which ATESD says it takes over; the look-ahead is ATESD's own, and what nobody
# has published of its controller are the defaults that docs/atesd.md gives reasons for.
ATESD_PAPER = {
    "method": "atesd",
    "steps": 100,
    "batch_size": 32,
    "checkpoint.every": 20,
    "student.lora.rank": 64,
    "student.lora.alpha": 128.0,
    "student.lora.targets": ("q", "k", "v", "o", "gate", "up", "down"),
    "student.thinking": "off",
    "exposure.thinking": "on",
    "exposure.unit": "sentence",
    "exposure.probe_size": 32,
    "exposed.weights": "frozen",
    "exposed.grounding_rows": 0,  # of all rows
    "rollout.student_temperature": 1.1,
    "rollout.student_top_p": 0.95,
    "rollout.student_top_k": 20,
    "rollout.max_total": 1024,
    "synthesis.mode": "online",
    "synthesis.trajectories_per_prompt": 1,
    "synthesis.sync_every": 1,
    "loss.divergence": "forward_kl",
    "loss.temperature": 1.1,
    "loss.clip": "summand",
    "controller.policy": "learned",
    "controller.hold": 5,
    "controller.look_ahead": 20,
    "controller.discount": 0.95,
    "controller.lambda_gt": 0.5,
    "controller.standardise_reward": True,
    "controller.reward_loss": "train",
    "controller.decisions_per_update": 4,
    "controller.learning_rate": 3e-3,
    "controller.hidden": 32,
    "controller.entropy_target": -0.15,
    "controller.entropy_weight": 0.01,
    "controller.entropy_warmup": 20,
    "controller.exposure_min": 0.05,
    "controller.exposure_max": 0.95,
    "controller.ema_decay": 0.9,
    "controller.groups": 1,
    "optimizer.learning_rate": 5e-6,
    "optimizer.final_learning_rate": 5e-6,
    "optimizer.schedule": "constant",
    "optimizer.warmup_fraction": 0.0,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "optimizer.decay": "matrices",
    "optimizer.clip_norm": 0.1,
    "evaluation.samples": 12,
    "evaluation.temperature": 1.0,
    "evaluation.top_p": 0.95,
    "evaluation.max_tokens": 38912,
}


def assert_says(config: Any, paper: dict[str, Any]) -> None:
    fields = {name: config for name in paper}
    for name in paper:
        for part in name.split("."):
            fields[name] = fields[name][part]
    assert fields == paper


def named_in_source(function: Any) -> set[str]:
    """Words in quotes, and what is assigned to: the fields that a preset says itself."""
    text = inspect.getsource(function)
    return {*re.findall(r"\"(\w+)\"", text), *re.findall(r"config(?:\.\w+)*\.(\w+)", text)}


def test_motab_is_set_as_published():
    config = preset("configs/motab.py:qwen3_32b_to_4b")
    assert_says(config, MOTAB_PAPER)
    settings = MotabSettings(**config.motab)
    assert settings == MotabSettings()  # whose defaults are the paper's
    assert OptimizerSettings(**config.optimizer) == OptimizerSettings()
    assert config.synthesis.pack_to == config.prompt.max_tokens + settings.max_total
    assert config.prompt.template == config.teacher.path
    said = named_in_source(papers.motab_32b_to_4b)
    assert {name.rpartition(".")[2] for name in MOTAB_PAPER} - {"method"} <= said


@pytest.mark.parametrize("size", papers.ATESD_SIZES)
def test_atesd_is_set_as_published_and_opsd_s(size):
    config = preset(f"configs/atesd.py:qwen3_{size}")
    assert_says(config, ATESD_PAPER | {"loss.clip_at": 0.06 if size == "8b" else 0.05})
    assert ControllerSettings(**config.controller) == ControllerSettings()
    assert len(lora_of(config.student).targets) == 7
    LossSettings(**config.loss)
    x = config.exposure
    assert x.template == "opsd"
    assert read_config(config).exposure.message == DEFAULT_TEMPLATE
    ReferenceWidths(x.max_head, x.max_reasoning, x.max_answer, x.max_tail)
    said = named_in_source(papers.atesd_qwen3)
    assert {name.rpartition(".")[2] for name in ATESD_PAPER} - {"method"} <= said


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
