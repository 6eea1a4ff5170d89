"""A base under adapters stays as it is, whatever the optimizer and the loss."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import models
from distill.train.optimizer import OptimizerSettings, make_optimizer
from distill.train.state import create_state, trained, with_trained
from distill.train.update import make_train_step
from models.lora import is_adapter

from ...models.tiny_models import tiny_config

RATE = 0.1


def tree() -> dict:
    """Named like a model's parameters; sizes tell base and adapters apart."""
    key = jax.random.split(jax.random.key(0), 5)
    return {
        "embed": jax.random.normal(key[0], (7, 5)),
        "layers": {
            "q": jax.random.normal(key[1], (2, 5, 5)),
            "q_lora_a": jax.random.normal(key[2], (2, 5, 3)),
            "q_lora_b": jax.random.normal(key[3], (2, 3, 5)),
            "attn_norm": jnp.ones((2, 5)),
        },
        "final_norm": jax.random.normal(key[4], (5,)),
    }


class Sums(flax.struct.PyTreeNode):
    total: jax.Array
    count: jax.Array

    @property
    def mean(self):
        return self.total / self.count

    @property
    def tokens(self):
        return self.count

    @property
    def metrics(self):
        return {}


def loss(params, rows):
    """Reads base and adapters; of its own it would have a gradient for either."""
    layer = params["layers"]
    q = layer["q"] + jnp.einsum("lir,lrj->lij", layer["q_lora_a"], layer["q_lora_b"])
    x = rows @ params["embed"] * params["final_norm"]
    for matrix, norm in zip(q, layer["attn_norm"], strict=True):
        x = jnp.tanh(x @ matrix * norm)
    return Sums(jnp.sum(jnp.square(x)), jnp.float32(rows.shape[0]))


def frozen_labels(params):
    return jax.tree.map_with_path(
        lambda path, _: "adapter" if is_adapter(path[-1].key) else "base", params
    )


OPTIMIZERS = {
    "adamw": optax.adamw(RATE, weight_decay=0.5),
    "adamw, masked decay": optax.adamw(
        RATE, weight_decay=0.5, mask=jax.tree.map(lambda x: x.ndim > 1, tree())
    ),
    "sgd and decay": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(RATE, 0.9)),
    "lion": optax.lion(RATE, weight_decay=0.5),
    "adafactor": optax.adafactor(RATE, min_dim_size_to_factor=2, weight_decay_rate=0.5),
    "lamb": optax.lamb(RATE, weight_decay=0.5),
    "clipped": optax.chain(optax.clip_by_global_norm(1e-2), optax.adamw(RATE)),
    "several": optax.MultiSteps(optax.adamw(RATE), 1),
    "labels": optax.multi_transform(
        {"adapter": optax.adamw(RATE), "base": optax.sgd(RATE)}, frozen_labels
    ),
    "labels of the whole tree": optax.multi_transform(
        {"adapter": optax.adamw(RATE), "base": optax.adamw(RATE)}, frozen_labels(tree())
    ),
    "masked": optax.masked(
        optax.adamw(RATE), jax.tree.map(lambda label: label == "adapter", frozen_labels(tree()))
    ),
    "schedule-free": optax.contrib.schedule_free_adamw(RATE, weight_decay=0.5),
    "ours": make_optimizer(OptimizerSettings(weight_decay=0.5, decay="all"), 10),
}
ROWS = jax.random.normal(jax.random.key(1), (4, 7))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_adapters_train_and_only_they_have_a_state(name):
    optimizer, params = OPTIMIZERS[name], tree()
    state = create_state(params, optimizer)
    # (A factored moment of an adapter looks like a norm's.)
    shapes = {params["embed"].shape, params["layers"]["q"].shape, params["final_norm"].shape}
    assert not shapes & {jnp.shape(x) for x in jax.tree.leaves(state.opt_state)}
    for parts in (1, 2):
        after, step = state, make_train_step(loss, optimizer, None, parts)
        for _ in range(2):
            after, metrics = step(after, ROWS)
        assert (metrics["skipped"], metrics["idle"]) == (0, 0)
        for path, x in jax.tree_util.tree_leaves_with_path(after.params):
            before = params
            for part in path:
                before = before[part.key]
            assert np.array_equal(x, before) != is_adapter(path[-1].key), path


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_norm_and_its_clipping_are_the_adapters(parts):
    """The base's gradient is far larger here, and would leave the adapters nothing of the norm."""
    params = tree()
    gradient = jax.grad(lambda p: loss(p, ROWS).mean)(params)
    own = jax.tree.map(lambda x: x, trained(gradient))
    norm = float(optax.tree.norm(own))
    assert float(optax.tree.norm(gradient)) > 1.5 * norm
    optimizer = optax.chain(optax.clip_by_global_norm(norm / 2), optax.sgd(1.0))
    new, metrics = make_train_step(loss, optimizer, None, parts)(
        create_state(params, optimizer), ROWS
    )
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    for name in ("q_lora_a", "q_lora_b"):
        moved = params["layers"][name] - new.params["layers"][name]
        np.testing.assert_allclose(moved, gradient["layers"][name] / 2, rtol=1e-4, atol=1e-5)


def test_a_state_of_all_parameters_is_refused():
    optimizer = optax.adam(RATE)
    state = create_state(tree(), optimizer).replace(opt_state=optimizer.init(tree()))
    with pytest.raises(ValueError, match="create_state"):
        make_train_step(loss, optimizer)(state, ROWS)


def test_a_config_and_its_parameters_go_together():
    config = tiny_config()
    adapted = config.replace(lora=models.LoraConfig(2, 4.0))
    base, both = models.abstract(config), models.abstract(adapted)
    for params, of, message in (
        (both, config, "config.lora is None"),
        (base, adapted, "add_adapters"),
    ):
        state = jax.eval_shape(lambda p: create_state(p, optax.sgd(RATE)), params)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(make_train_step(loss, optax.sgd(RATE), of), state, ROWS)


def test_without_adapters_everything_trains():
    params = {"w": jnp.ones(2), "layers": [jnp.ones(3)]}
    assert trained(params) is params
    part = trained(tree())
    assert len(jax.tree.leaves(part)) == 2
    doubled = with_trained(jax.tree.map(lambda x: 2 * x, part), tree())
    np.testing.assert_array_equal(doubled["layers"]["q_lora_a"], 2 * tree()["layers"]["q_lora_a"])
    np.testing.assert_array_equal(doubled["embed"], tree()["embed"])
