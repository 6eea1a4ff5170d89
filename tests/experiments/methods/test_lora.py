"""A student with adapters: what trains, what is kept, whose the teacher is, what is exported."""

from __future__ import annotations

import functools
import importlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file
from transformers import AutoConfig

import atesd
import models
from configs import common
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.sharding import state_shardings
from distill.train.state import create_state
from distill.train.update import make_train_step
from experiments.checkpoints.checkpoints import Checkpoints, abstract, restore_params
from experiments.config.read import read_config
from experiments.export import export, student_of
from experiments.methods import make_method, make_recipe
from experiments.methods.atesd import AtesdRecipe
from experiments.pair.pair import load_pair, lora_of, start_student
from experiments.train.loop import run
from experiments.workdir.workdir import read_log
from models.lora import is_adapter

from ...atesd import tiny_exposed
from ...atesd.tiny_exposed import QUICK
from ...motab import tiny

ADAPTERS = {"rank": 4, "alpha": 8.0, "targets": ("q", "v", "o", "down")}
LORA = models.LoraConfig(**ADAPTERS)
BASE = tiny_exposed.STUDENT
STUDENT = BASE.replace(lora=LORA)
TOKENS = np.random.RandomState(0).randint(1, 13, (4, 9)).astype(np.int32)


def named(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in leaves}


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.tobytes() == y.tobytes()
        for x, y in zip(named(a).values(), named(b).values(), strict=True)
    )


def base_of(params):
    return {name: x for name, x in named(params).items() if not is_adapter(name)}


def start():
    """A student whose adapters, B too, are not zero."""
    params = models.add_adapters(tiny.params(BASE, 1), STUDENT, jax.random.key(3))
    random = np.random.RandomState(4)
    layers = {
        n: jnp.asarray(0.3 * random.standard_normal(x.shape), jnp.float32) if is_adapter(n) else x
        for n, x in params["layers"].items()
    }
    return {**params, "layers": layers}


class Sums(flax.struct.PyTreeNode):
    """A loss that is one number."""

    mean: jax.Array
    tokens: float = 1.0
    metrics: dict = flax.struct.field(default_factory=dict)


def likelihood(params, tokens):
    log_probs = jax.nn.log_softmax(models.forward(params, STUDENT, tokens[:, :-1]))
    return Sums(-jnp.mean(jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)))


def of_everything(params, tokens):
    """A loss that knows nothing of adapters."""
    return Sums(optax.tree.norm(params) + 0 * jnp.sum(tokens))


def optimizer(**fields):
    settings = OptimizerSettings(learning_rate=1e-2, weight_decay=0.5, **fields)
    return make_optimizer(settings, 10, models.trainable(models.abstract(STUDENT), STUDENT))


@functools.cache
def compiled(loss):
    return jax.jit(make_train_step(loss, optimizer()), compiler_options=QUICK)


@pytest.mark.parametrize("loss", [likelihood, of_everything])
def test_three_updates_with_weight_decay_leave_the_base_bit_for_bit(loss):
    state = create_state(start(), optimizer())
    for _ in range(3):
        state, metrics = compiled(loss)(state, TOKENS)
    before, after = named(start()), named(state.params)
    for name, x in before.items():
        assert (x.tobytes() == after[name].tobytes()) == (not is_adapter(name)), name
    assert np.isfinite(metrics["loss"])


def test_no_moment_is_held_for_the_base():
    params = start()
    adapters = sum(x.size for n, x in named(params).items() if is_adapter(n))
    state = create_state(params, optimizer())
    sizes = [x.size for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(sizes) == 2 * adapters and len(sizes) == 2 * 2 * len(ADAPTERS["targets"])
    assert 4 * adapters < sum(x.size for x in base_of(params).values())


def test_the_norm_and_clipping_are_of_the_adapters_alone():
    params = start()
    gradient = jax.jit(jax.grad(lambda p: likelihood(p, TOKENS).mean), compiler_options=QUICK)
    gradients = named(gradient(params))
    norm = np.sqrt(sum(np.sum(x**2) for n, x in gradients.items() if is_adapter(n)))
    state = create_state(params, optimizer())
    _, metrics = compiled(likelihood)(state, TOKENS)
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-5)
    # Even a gradient of the base, were there one, would not count.
    ones = jax.tree.map(jnp.ones_like, params)
    huge = jax.tree.map(
        lambda trains, x: x if trains else 1e6 * x, models.trainable(ones, STUDENT), ones
    )
    small = optimizer(clip_norm=0.1, eps=1.0)  # so that sizes of gradients matter
    expected, _ = small.update(ones, small.init(params), params)
    got, _ = small.update(huge, small.init(params), params)
    assert same(got, expected)


def test_the_optimisers_state_lies_where_the_adapters_do():
    mesh = jax.sharding.AbstractMesh((1, 2, 1), ("data", "fsdp", "tensor"))
    shapes = models.abstract(STUDENT)
    state = jax.eval_shape(functools.partial(create_state, optimizer=optimizer()), shapes)
    places = state_shardings(state, optimizer(), STUDENT, mesh)
    assert jax.tree.structure(places) == jax.tree.structure(state)
    expected = models.shardings(STUDENT, mesh)["layers"]
    moments = {
        path[-1].key: place
        for path, place in jax.tree.leaves_with_path(places.opt_state)
        if is_adapter(getattr(path[-1], "key", ""))
    }
    assert moments == {n: x for n, x in expected.items() if is_adapter(n)}
    assert "fsdp" in moments["q_lora_a"].spec


def test_a_checkpoint_brings_everything_back(tmp_path):
    state = create_state(start(), optimizer())
    step = compiled(likelihood)
    state, _ = step(state, TOKENS)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        restored = checkpoints.restore("final", abstract(create_state(start(), optimizer())))
    assert same(restored.state, state)
    assert same(restore_params(tmp_path, "final")[0], state.params)
    after, _ = step(restored.state, TOKENS)
    assert same(after, step(state, TOKENS)[0])


def distil(teacher: atesd.TeacherSettings, teacher_config, teacher_params, updates: int = 3):
    """States and metrics of a few updates of OPSD on a student whose adapters have moved."""
    controller = atesd.ControllerSettings(policy="fixed", hold=2)
    step = atesd.make_train_step(
        STUDENT, teacher_config, atesd.LossSettings(), controller, teacher, optimizer(), 10,
        tiny_exposed.RESPONSE, tiny_exposed.EOS,
    )  # fmt: skip
    params = start()
    method_state = atesd.init_method_state(params, jax.random.key(0), controller, teacher)
    state, seen = create_state(params, optimizer(), method_state), []
    step = jax.jit(step, compiler_options=QUICK)
    for seed in range(updates):
        batches = (tiny_exposed.batch(seed), tiny_exposed.batch(77, 3))
        state, metrics = step(state, teacher_params, batches)
        seen.append({n: float(x) for n, x in metrics.items()})
    return state, seen


@pytest.mark.slow
def test_the_base_inside_teaches_as_a_copy_of_it_does():
    frozen = atesd.TeacherSettings()
    state, metrics = distil(frozen, BASE, None)
    apart = models.merge(start(), BASE)[0]  # the base without adapters
    other, expected = distil(frozen, BASE, apart)
    assert metrics == expected
    assert same(state.params, other.params)
    assert metrics[0]["loss"] > 0.01
    assert same(base_of(state.params), base_of(start()))
    # An external teacher of the same architecture is one all the same.
    _, third = distil(frozen, BASE, tiny.params(BASE, 2), updates=1)
    assert third[0]["loss"] != metrics[0]["loss"]


@pytest.mark.slow
def test_averaged_and_live_teachers_have_adapters():
    state, metrics = distil(atesd.TeacherSettings(weights="ema", decay=0.5), STUDENT, None)
    teacher = state.method_state["teacher_params"]
    assert same(base_of(teacher), base_of(start()))
    assert not same(teacher, state.params) and not same(teacher, start())
    assert all(np.isfinite(m["loss"]) for m in metrics)
    _, (live,) = distil(atesd.TeacherSettings(weights="live"), STUDENT, None, updates=1)
    assert live["loss"] == pytest.approx(metrics[0]["loss"], rel=1e-6) and live["loss"] > 0.01


def section(**lora) -> ConfigDict:
    return ConfigDict({"lora": {**common.shared()["student"]["lora"], **lora}})


def test_the_students_section_says_which_adapters():
    assert lora_of(section()) is None and lora_of(ConfigDict({})) is None and lora_of({}) is None
    assert lora_of(section(rank=64)) == models.LoraConfig(64, 128.0)
    assert lora_of({"lora": {**ADAPTERS, "targets": list(ADAPTERS["targets"])}}) == LORA
    for fields, message in (
        ({"rank": -1}, r"lora\.rank=-1 must"),
        ({"rank": 2, "alpha": -1.0}, r"lora\.alpha=-1.0 must"),
        ({"rank": 2, "targets": ("w",)}, r"lora\.targets"),
        ({"rank": 2, "dropout": 0.1}, r"lora\.dropout: there is no such field"),
    ):
        with pytest.raises(ValueError, match=message):
            lora_of(section(**fields))
    with pytest.raises(ValueError, match=r"lora\.alpha is missing"):
        lora_of({"lora": {"rank": 2}})


def small(name: str = "opsd", arg: str = "smoke", **lora) -> ConfigDict:
    """Three updates on short problems."""
    config = importlib.import_module(f"configs.{name}").get_config(arg)
    config.student.path = "embedded:student"
    config.student.lora.update({"rank": 4, "alpha": 8.0, **lora})
    config.steps, config.batch_size = 3, 6
    config.data.train.update({"size": 32, "min_steps": 2, "max_steps": 2})
    config.data.validation.update({"size": 6, "min_steps": 2, "max_steps": 2})
    config.data.test.name = config.data.long.name = ""
    config.evaluation.update({"max_tokens": 8, "batch_size": 6})
    config.optimizer.warmup_fraction = 0.0
    config.checkpoint.update({"every": 3, "keep_best": False})
    config.samples.every = 0
    if name == "opsd":
        config.exposure.update({"probe_size": 6, "max_reasoning": 32})
        config.rollout.max_total = 32
    return config


def test_adapters_start_from_the_seed_on_the_students_weights():
    config = small()
    pair = load_pair(read_config(config))
    params = start_student(pair, config.seed)
    assert jax.tree.structure(params) == jax.tree.structure(models.abstract(pair.student_config))
    base = models.load_pretrained(pair.student_directory)[1]
    assert same(base_of(params), base_of(base)) and pair.student_config.lora.rank == 4
    assert same(params, start_student(pair, config.seed))
    config.seed = 1
    assert not same(params, start_student(pair, config.seed))


def test_each_field_changes_the_student():
    plain = load_pair(read_config(small())).student_config
    for field in ({"rank": 5}, {"alpha": 2.0}, {"targets": ("q",)}):
        assert load_pair(read_config(small(**field))).student_config != plain


def test_a_frozen_teacher_is_held_once(monkeypatch):
    monkeypatch.setattr(AtesdRecipe, "_read_probe", lambda self: None)
    config = small()
    pair = load_pair(read_config(config))
    recipe = make_recipe(read_config(config), pair)
    assert recipe.pair.teacher_params is None
    assert recipe.pair.teacher_config == pair.student_config.replace(lora=None)
    for weights in ("ema", "live"):
        config.exposed.weights = weights
        assert make_recipe(read_config(config), pair).pair.teacher_config == pair.student_config
    config.student.lora.rank = 0
    config.exposed.weights = "frozen"
    plain = make_recipe(read_config(config), load_pair(read_config(config))).pair
    assert plain.teacher_params is not None and plain.teacher_config == plain.student_config


def test_grpos_reference_policy_is_the_base_in_the_state(monkeypatch):
    seen = []

    def loss(params, config, settings, trajectories, advantages, old, *reference):
        seen.append(reference)
        return Sums(jnp.sum(params["w_lora_a"]))

    monkeypatch.setattr("experiments.methods.grpo.policy_gradient_loss", loss)
    config = small("grpo")
    config.synthesis.trajectories_per_prompt = 2
    config.grpo.kl_weight = 0.1
    pair = load_pair(read_config(config))
    recipe = make_recipe(read_config(config), pair)
    assert recipe.pair.teacher_params is None
    state = create_state({"w": jnp.zeros(2), "w_lora_a": jnp.zeros(2)}, optax.sgd(1.0))
    recipe.train_step(optax.sgd(1.0))(state, None, (None, jnp.ones(4)))
    ((reference, reference_config, *_),) = seen
    assert reference["w"] is state.params["w"]
    assert reference_config == pair.student_config.replace(lora=None)


@pytest.mark.slow
def test_a_run_of_opsd_trains_adapters_and_exports_a_plain_model(tmp_path):
    config = small()
    workdir = tmp_path / "run"
    run(config, workdir)
    log = [r for r in read_log(workdir / "metrics.jsonl") if r["kind"] == "train"]
    assert len(log) == 3 and all(np.isfinite(r["loss"]) and r["grad_norm"] > 0 for r in log)

    pair = load_pair(read_config(config))
    first = start_student(pair, config.seed)
    trained, step = restore_params(workdir / "checkpoints", "final")
    assert step == 3 and same(base_of(trained), base_of(first))
    for name, x in named(trained).items():
        assert not is_adapter(name) or np.any(x != named(first)[name]), name
    # What a resumed run asks for is what lies there.
    method = make_method(read_config(config), pair, workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert same(checkpoints.restore("final", method.abstract()).state.params, trained)

    assert student_of(config.to_dict())[0].lora == pair.student_config.lora
    assert export(workdir, tmp_path / "out") == 3
    exported, plain = models.load_pretrained(tmp_path / "out"), pair.student_config
    merged, merged_config = models.merge(trained, plain)
    assert exported[0] == merged_config and same(exported[1], merged)
    assert not same(base_of(merged), base_of(first))
    # The layout is that of the model it started from.
    assert AutoConfig.from_pretrained(tmp_path / "out").num_hidden_layers == plain.num_layers
    written, there = (
        {name: x.shape for name, x in load_file(directory / "model.safetensors").items()}
        for directory in (tmp_path / "out", pair.student_directory)
    )
    assert written == there
