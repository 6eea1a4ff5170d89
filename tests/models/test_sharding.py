"""A mesh changes where arrays lie, and nothing else."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from tiny_models import tiny_config, tiny_params

from models import abstract, count, declare, init, load_pretrained, save_pretrained, shardings
from models.sharding import DEFAULT_RULES

from ..fake_devices import flags_of

RELATIVE = 1e-5
# Every family, tied and untied, with heads that split over two devices.
MODELS = {
    "qwen3": tiny_config("qwen3"),
    "qwen3_tied": tiny_config("qwen3", tie_embeddings=True),
    "qwen2_tied": tiny_config("qwen2"),
    "llama": tiny_config("llama"),
}


@pytest.fixture(scope="module")
def report_of(tmp_path_factory) -> Callable[[str], dict]:
    """A model's name to what differs on a mesh; each model is compared once."""

    @functools.cache
    def compare(name: str) -> dict:
        directory, config = tmp_path_factory.mktemp("checkpoints"), MODELS[name]
        save_pretrained(tiny_params(config), config, directory / name, max_shard_bytes=20_000)
        here = Path(__file__).resolve()
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags_of(8),
            "PYTHONPATH": os.pathsep.join([str(here.parents[2]), os.environ.get("PYTHONPATH", "")]),
        }
        finished = subprocess.run(
            [sys.executable, here.with_name("sharded_models.py"), directory],
            env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr[-5000:]
        # The partitioner says so when it can only go on by replicating an activation.
        assert "rematerialization" not in finished.stderr
        return json.loads(finished.stdout.splitlines()[-1])[name]

    return compare


@pytest.fixture(
    params=[
        name if name == "qwen3" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS
    ]
)
def report(request, report_of) -> dict:
    return report_of(request.param)


def test_loading_on_a_mesh_gives_the_same_arrays_in_parts(report):
    assert report["unequal"] == []
    assert report["misplaced"] == []
    assert all("norm" in name for name in report["whole"])


def test_forward_equals_one_device(report):
    assert report["loss"] <= RELATIVE
    assert report["logits"] <= RELATIVE


def test_gradients_equal_one_device_array_by_array(report):
    assert len(report["gradients"]) >= 12
    wrong = {name: x for name, x in report["gradients"].items() if not x <= RELATIVE}
    assert not wrong


@pytest.mark.parametrize("name", ["qwen3", pytest.param("qwen2_tied", marks=pytest.mark.slow)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generate_gives_the_same_tokens(temperature, name, report_of):
    assert report_of(name)[f"same tokens at {temperature}"]
    assert report_of(name)[f"log-probs at {temperature}"] <= RELATIVE


def abstract_mesh(**sizes) -> AbstractMesh:
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


def test_every_array_is_placed_by_its_logical_axes():
    places = shardings(tiny_config("qwen2"), abstract_mesh(data=2, fsdp=2, tensor=2))
    assert places["embed"].spec == PartitionSpec("tensor", "fsdp")
    assert places["layers"]["q"].spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert places["layers"]["o"].spec == PartitionSpec(None, "tensor", None, "fsdp")
    assert places["layers"]["gate"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert places["layers"]["down"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert places["layers"]["k_bias"].spec == PartitionSpec(None, "tensor", None)
    assert places["final_norm"].spec == PartitionSpec(None)


def test_absent_mesh_axes_and_rules_replicate():
    config = tiny_config("llama")
    places = shardings(config, abstract_mesh(fsdp=2))
    assert places["layers"]["q"].spec == PartitionSpec(None, "fsdp", None, None)
    places = shardings(config, abstract_mesh(fsdp=2, tensor=2), rules=(("vocab", ("tensor",)),))
    assert places["layers"]["q"].spec == PartitionSpec(None, None, None, None)
    assert places["head"].spec == PartitionSpec("tensor", None)


def test_an_axis_that_does_not_divide_raises():
    with pytest.raises(ValueError, match=r"'layers/k'.*'kv_heads' of size 2.*\(4 parts\)"):
        shardings(tiny_config("qwen3"), abstract_mesh(tensor=4))


def test_two_axes_on_one_mesh_axis_raise():
    rules = tuple({**dict(DEFAULT_RULES), "embed": ("tensor",)}.items())
    with pytest.raises(
        ValueError, match=r"'embed'.*both axis 'vocab' and axis 'embed' on mesh axis 'tensor'"
    ):
        shardings(tiny_config("qwen3", rules=rules), abstract_mesh(tensor=2))


def test_a_table_of_rules_changes_what_it_names():
    changes = {"kv_heads": (), "mlp": ("fsdp", "tensor"), "embed": ()}
    rules = tuple({**dict(DEFAULT_RULES), **changes}.items())
    places = shardings(tiny_config("qwen3", rules=rules), abstract_mesh(fsdp=2, tensor=2))
    assert places["layers"]["k"].spec == PartitionSpec(None, None, None, None)
    assert places["layers"]["q"].spec == PartitionSpec(None, None, "tensor", None)
    assert places["layers"]["up"].spec == PartitionSpec(None, None, ("fsdp", "tensor"))


def test_one_device_mesh_loads(tmp_path):
    config = tiny_config("qwen3")
    params = tiny_params(config)
    save_pretrained(params, config, tmp_path / "saved")
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tensor"))
    rules = (("embed", ("fsdp",)),)
    loaded, split = load_pretrained(tmp_path / "saved", mesh=mesh, rules=rules)
    assert (loaded.mesh, loaded.rules) == (mesh, rules)
    jax.tree.map(np.testing.assert_array_equal, split, params)
    save_pretrained(split, loaded, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(tmp_path / "again")[1], params)


def test_declarations_agree_with_init_and_abstract(family):
    config = tiny_config(family)
    params = init(jax.random.key(0), config, "bfloat16")
    expected = abstract(config, "bfloat16")
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )
    assert count(config) == sum(x.size for x in jax.tree.leaves(params))
    assert jax.tree.structure(declare(config)) == jax.tree.structure(params)
    assert np.all(np.asarray(params["layers"]["attn_norm"]) == 1)
