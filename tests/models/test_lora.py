"""Adapters against the merged model, and the merged model against NumPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from tiny_models import tiny_config, tiny_params

import models
from models import LoraConfig
from models.lora import adapter_output, is_adapter

ALL = LoraConfig(rank=3, alpha=6.0)
SOME = LoraConfig(rank=2, alpha=0.5, targets=("v", "o", "down"))
TOKENS = np.random.RandomState(0).randint(0, 64, (3, 11)).astype(np.int32)
# W [.., inputs, outputs] + A [.., inputs, r] B [r, outputs], axis by axis.
PRODUCTS = {
    "q": "ldr,lrhe->ldhe", "k": "ldr,lrhe->ldhe", "v": "ldr,lrhe->ldhe", "o": "lher,lrd->lhed",
    "gate": "ldr,lrf->ldf", "up": "ldr,lrf->ldf", "down": "lfr,lrd->lfd",
}  # fmt: skip

# For programs that run a few times: half the time to compile.
QUICK = {"xla_backend_optimization_level": 0}
forward = jax.jit(models.forward, static_argnums=1, compiler_options=QUICK)


def adapted(family: str = "qwen3", lora: LoraConfig = ALL, **changes):
    """A config and parameters whose adapters, B too, are not zero."""
    config = tiny_config(family, lora=lora, **changes)
    return config, tiny_params(config)


def test_the_declaration_has_the_matrix_axes_on_either_side():
    declared = models.declare(tiny_config(lora=ALL))["layers"]
    shapes = {n: (d.shape, d.axes) for n, d in declared.items() if is_adapter(n)}
    assert len(shapes) == 14
    assert shapes["q_lora_a"] == ((2, 32, 3), (None, "embed", None))
    assert shapes["q_lora_b"] == ((2, 3, 4, 12), (None, None, "heads", None))
    assert shapes["k_lora_b"] == ((2, 3, 2, 12), (None, None, "kv_heads", None))
    assert shapes["o_lora_a"] == ((2, 4, 12, 3), (None, "heads", None, None))
    assert shapes["o_lora_b"] == ((2, 3, 32), (None, None, "embed"))
    assert shapes["down_lora_a"] == ((2, 48, 3), (None, "mlp", None))
    some = models.declare(tiny_config(lora=SOME))["layers"]
    expected = {f"{n}_lora_{side}" for n in SOME.targets for side in "ab"}
    assert {n for n in some if is_adapter(n)} == expected


@pytest.mark.parametrize("lora", [ALL, SOME], ids=["all", "some"])
def test_merging_adds_the_scaled_product(lora):
    config, params = adapted(lora=lora)
    merged, plain = models.merge(params, config)
    assert plain == tiny_config()
    for name, array in tiny_params(config)["layers"].items():
        if is_adapter(name):
            continue
        expected = np.asarray(array, np.float64)
        if name in lora.targets:
            a, b = (np.asarray(params["layers"][f"{name}_lora_{s}"], np.float64) for s in "ab")
            expected = expected + lora.alpha / lora.rank * np.einsum(PRODUCTS[name], a, b)
            np.testing.assert_allclose(merged["layers"][name], expected, rtol=1e-5, atol=1e-6)
        else:
            assert merged["layers"][name] is params["layers"][name]
    # The merged tree is a model like any other.
    structure = jax.tree.structure(models.abstract(plain))
    assert jax.tree.structure(merged) == structure


def test_merging_keeps_the_dtype_of_the_base_and_needs_no_adapters():
    config = tiny_config(lora=ALL)
    params = {**tiny_params(config, dtype="bfloat16")}
    wide, _ = models.merge(jax.tree.map(lambda x: x.astype("float32"), params), config)
    narrow, plain = models.merge(params, config)
    for x, y in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True):
        np.testing.assert_array_equal(x.astype("bfloat16"), y, strict=True)
    again, same = models.merge(narrow, plain)
    assert same == plain and jax.tree.all(jax.tree.map(lambda x, y: x is y, again, narrow))


@pytest.mark.parametrize("name", ["gate", "o"])
def test_an_adapters_output_by_einsum(name):
    config, params = adapted()
    layer = jax.tree.map(lambda x: x[1], params["layers"])
    x = np.random.RandomState(3).standard_normal((2, 5, *((4, 12) if name == "o" else (32,))))
    a, b = (np.asarray(layer[f"{name}_lora_{side}"], np.float64) for side in "ab")
    low = x.reshape(2, 5, -1) @ a.reshape(-1, 3)
    expected = 2.0 * low @ b
    got = adapter_output(jnp.asarray(x, jnp.float32), layer, name, config)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("lora", [ALL, SOME], ids=["all", "some"])
def test_forward_equals_that_of_the_merged_model(family, lora):
    config, params = adapted(family, lora)
    logits = np.asarray(forward(params, config, TOKENS))
    merged = np.asarray(forward(*models.merge(params, config), TOKENS))
    base = np.asarray(forward(params, config.replace(lora=None), TOKENS))
    np.testing.assert_allclose(logits, merged, rtol=2e-5, atol=2e-5 * np.abs(merged).max())
    assert np.abs(logits - base).max() > 0.1


def test_fresh_adapters_are_the_base_bit_for_bit(family):
    base = tiny_config(family)
    params = tiny_params(base)
    config = base.replace(lora=ALL)
    fresh = models.add_adapters(params, config, jax.random.key(0))
    assert jax.tree.structure(fresh) == jax.tree.structure(models.abstract(config))
    expected = forward(params, base, TOKENS)
    np.testing.assert_array_equal(forward(fresh, config, TOKENS), expected)
    # A config without adapters does not see those of the tree.
    np.testing.assert_array_equal(forward(adapted(family)[1], base, TOKENS), forward(
        models.merge(adapted(family)[1], base)[0], base, TOKENS
    ))  # fmt: skip


def test_fresh_adapters_are_drawn_by_fan_in_and_zero():
    config = tiny_config(hidden_size=256, lora=LoraConfig(24, 1.0, ("q", "o")))
    params = tiny_params(config.replace(lora=None))
    fresh = models.add_adapters(params, config, jax.random.key(0))
    for name in ("embed", "final_norm"):
        assert fresh[name] is params[name]
    layers = fresh["layers"]
    assert layers["q"] is params["layers"]["q"]
    assert float(jnp.std(layers["q_lora_a"])) == pytest.approx(256**-0.5, rel=0.05)
    assert float(jnp.std(layers["o_lora_a"])) == pytest.approx((4 * 12) ** -0.5, rel=0.05)
    assert not np.any(layers["q_lora_b"]) and not np.any(layers["o_lora_b"])
    other = models.add_adapters(fresh, config, jax.random.key(1))
    assert jax.tree.structure(other) == jax.tree.structure(fresh)
    assert not np.any(other["layers"]["q_lora_a"] == layers["q_lora_a"])


def test_greedy_decoding_equals_that_of_the_merged_model(prompts):
    config, params = adapted("qwen2")
    arguments = (*prompts, jax.random.key(0), 12, 0.0)
    ours = models.generate(params, config, *arguments)
    merged = models.generate(*models.merge(params, config), *arguments)
    np.testing.assert_array_equal(ours.tokens_BxN, merged.tokens_BxN)
    np.testing.assert_allclose(ours.log_probs_BxN, merged.log_probs_BxN, atol=1e-4)
    base = models.generate(params, config.replace(lora=None), *arguments)
    assert np.any(np.asarray(ours.tokens_BxN != base.tokens_BxN))


def loss(params, config):
    log_probs = jax.nn.log_softmax(models.forward(params, config, TOKENS[:, :-1]))
    chosen = jnp.take_along_axis(log_probs, TOKENS[:, 1:, None], axis=-1)
    return -jnp.mean(chosen)


gradients = jax.jit(jax.grad(loss), static_argnums=1, compiler_options=QUICK)


@pytest.mark.parametrize(
    ("family", "lora"), [("qwen3", ALL), ("qwen2", SOME)], ids=["untied", "tied"]
)
def test_adapters_alone_have_gradients_those_through_the_merged_weights(family, lora):
    config, params = adapted(family, lora)
    got = gradients(params, config)
    full = gradients(*models.merge(params, config))["layers"]
    mask = models.trainable(params, config)
    for x, trains in zip(jax.tree.leaves(got), jax.tree.leaves(mask), strict=True):
        assert trains == bool(np.any(x))
    assert sum(jax.tree.leaves(mask)) == 2 * len(lora.targets)
    scale = lora.alpha / lora.rank
    for name in lora.targets:
        # dL/dA = scale dL/dW B^T and dL/dB = scale A^T dL/dW, layer by layer, as matrices.
        a, b = (np.asarray(params["layers"][f"{name}_lora_{s}"], np.float64) for s in "ab")
        a, b = a.reshape(2, -1, lora.rank), b.reshape(2, lora.rank, -1)
        dw = np.asarray(full[name], np.float64).reshape(2, a.shape[1], b.shape[2])
        for side, expected in (
            ("a", scale * dw @ b.transpose(0, 2, 1)),
            ("b", scale * a.transpose(0, 2, 1) @ dw),
        ):
            x = np.asarray(got["layers"][f"{name}_lora_{side}"]).reshape(expected.shape)
            np.testing.assert_allclose(x, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


def test_gradients_by_finite_differences():
    config, params = adapted()
    value = jax.jit(loss, static_argnums=1, compiler_options=QUICK)
    gradient = gradients(params, config)["layers"]
    random = np.random.RandomState(5)
    for name in ("k_lora_a", "o_lora_b", "down_lora_a"):
        array = params["layers"][name]
        direction = random.standard_normal(array.shape).astype(np.float32)
        sides = [
            float(value({**params, "layers": {**params["layers"], name: array + h * direction}}, config))
            for h in (1e-2, -1e-2)
        ]  # fmt: skip
        expected = float(np.sum(np.asarray(gradient[name]) * direction))
        assert (sides[0] - sides[1]) / 2e-2 == pytest.approx(expected, rel=2e-2)


def test_rematerialisation_changes_no_gradient():
    config, params = adapted()
    plain = gradients(params, config)
    again = gradients(params, config.replace(remat="dots"))
    for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_without_adapters_everything_trains():
    config = tiny_config()
    mask = models.trainable(models.abstract(config), config)
    assert all(jax.tree.leaves(mask))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "lora.rank=0 must"),
        ({"alpha": 0.0}, "lora.alpha=0.0 must"),
        ({"alpha": float("nan")}, "lora.alpha=nan must"),
        ({"targets": ()}, "lora.targets=.*at least one"),
        ({"targets": ("q", "embed")}, "lora.targets=.*out of"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**{"rank": 2, "alpha": 1.0, **fields})


def test_a_rank_beyond_a_matrix_is_refused():
    # Keys and values are 2 x 12 wide, everything else at least 32.
    tiny_config(lora=LoraConfig(24, 1.0))
    with pytest.raises(ValueError, match=r"lora\.rank=25 with 'k' among .* at most 24"):
        tiny_config(lora=LoraConfig(25, 1.0))
    tiny_config(lora=LoraConfig(32, 1.0, ("q", "gate")))
    with pytest.raises(ValueError, match=r"lora\.rank=33 with 'gate'"):
        tiny_config(lora=LoraConfig(33, 1.0, ("gate",)))


def test_what_needs_or_forbids_adapters_says_so(tmp_path):
    config, params = adapted()
    with pytest.raises(ValueError, match="lora is None"):
        models.add_adapters(params, config.replace(lora=None), jax.random.key(0))
    with pytest.raises(ValueError, match="merge the adapters"):
        models.save_pretrained(params, config, tmp_path / "x")
    with pytest.raises(ValueError, match=r"lora_a.*no such array"):
        models.save_pretrained(params, config.replace(lora=None), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_merged_model_survives_the_disk(tmp_path):
    config, params = adapted("qwen2")
    merged, plain = models.merge(params, config)
    models.save_pretrained(merged, plain, tmp_path / "merged")
    loaded, again = models.load_pretrained(tmp_path / "merged")
    assert loaded == plain
    jax.tree.map(np.testing.assert_array_equal, again, merged)


def test_adapters_lie_where_their_matrix_does():
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"))
    places = models.shardings(tiny_config(lora=ALL), mesh)["layers"]
    assert places["q_lora_a"].spec == PartitionSpec(None, "fsdp", None)
    assert places["q_lora_b"].spec == PartitionSpec(None, None, "tensor", None)
    assert places["o_lora_a"].spec == PartitionSpec(None, "tensor", None, None)
    assert places["o_lora_b"].spec == PartitionSpec(None, None, "fsdp")
    assert places["down_lora_a"].spec == PartitionSpec(None, "tensor", None)


@pytest.mark.slow
def test_a_mesh_changes_where_adapters_lie_and_nothing_else():
    here = Path(__file__).resolve()
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(here.parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    finished = subprocess.run(
        [sys.executable, here.with_name("sharded_lora.py")],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-5000:]
    assert "rematerialization" not in finished.stderr
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["misplaced"] == [] and report["unequal"] == []
    assert report["moments misplaced"] == []
    assert report["moments"] == 2 * 14
    assert report["logits"] <= 1e-5 and report["loss"] <= 1e-5
    assert report["updated"] == report["adapters"]
    wrong = {n: x for n, x in report["gradients"].items() if not x <= 1e-5}
    assert len(report["gradients"]) == 14 and not wrong
