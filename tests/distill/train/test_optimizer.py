"""Schedules and clipping by their definition, and every field by its effect."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import models
from distill.train.optimizer import OptimizerSettings, make_optimizer, make_schedule, matrices

SETTINGS = OptimizerSettings(
    learning_rate=1e-2, final_learning_rate=1e-3, warmup_fraction=0.1, clip_norm=0.5
)


def test_cosine_with_warmup():
    schedule = make_schedule(SETTINGS, 100)
    rates = np.array([float(schedule(i)) for i in range(100)])
    assert 0 < rates[0] < rates[9] < rates[10] == pytest.approx(1e-2)
    assert np.all(np.diff(rates[10:]) < 0)
    middle = 1e-3 + (1e-2 - 1e-3) * 0.5 * (1 + math.cos(math.pi * 45 / 90))
    assert rates[55] == pytest.approx(middle, rel=1e-5)
    assert float(schedule(100)) == pytest.approx(1e-3, rel=1e-5)


def test_constant_and_no_warmup():
    constant = dataclasses.replace(SETTINGS, schedule="constant", warmup_fraction=0.0)
    schedule = make_schedule(constant, 10)
    assert [float(schedule(i)) for i in (0, 5, 10)] == pytest.approx([1e-2] * 3)


def test_one_adamw_update_by_hand():
    params, grads = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4])
    settings = dataclasses.replace(SETTINGS, schedule="constant", warmup_fraction=0.0, eps=1e-3)
    optimizer = make_optimizer(settings, 10)
    update, _ = optimizer.update(grads, optimizer.init(params), params)
    # Norm .5 is not clipped; the first Adam moments, unbiased, are g and g^2.
    expected = -1e-2 * (grads / (jnp.abs(grads) + 1e-3) + 0.1 * params)
    np.testing.assert_allclose(update, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 2e-2),
        ("final_learning_rate", 5e-3),
        ("schedule", "constant"),
        ("warmup_fraction", 0.4),
        ("b1", 0.5),
        ("b2", 0.5),
        ("eps", 1e-1),
        ("weight_decay", 0.9),
        ("clip_norm", 0.0),
    ],
)
def test_every_field_changes_something(field, value):
    def train(settings):
        optimizer = make_optimizer(settings, 8)
        params = jnp.array([1.0, -2.0])
        state = optimizer.init(params)
        for i in range(8):
            grads = jnp.array([3.0 * math.sin(i), 2.0])
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    changed = dataclasses.replace(SETTINGS, **{field: value})
    assert not np.allclose(train(SETTINGS), train(changed), rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "linear"),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("final_learning_rate", -1e-9),
        ("final_learning_rate", 1.0),  # above the peak
        ("warmup_fraction", 1.0),
        ("b1", 1.0),
        ("b2", 1.0),
        ("b1", -0.1),
        ("eps", 0.0),
        ("weight_decay", -0.1),
        ("decay", "none"),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("micro_batches", 0),
        *(
            (field.name, math.nan)
            for field in dataclasses.fields(OptimizerSettings)
            if isinstance(field.default, float)
        ),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^optimizer\.{field}="):
        OptimizerSettings(**{field: value})


def test_a_constant_rate_reads_no_final_one():
    settings = OptimizerSettings(learning_rate=1e-7, schedule="constant", warmup_fraction=0.0)
    assert settings.final_learning_rate > settings.learning_rate
    schedule = make_schedule(settings, steps=10)
    assert [float(schedule(step)) for step in (0, 9)] == pytest.approx([1e-7, 1e-7])


PARAMS = {
    "embed": jnp.ones((3, 2)),
    "layers": {
        "attn_norm": jnp.ones((2, 4)),
        "q": jnp.ones((2, 4, 4)),
        "q_bias": jnp.ones((2, 4)),
        "q_norm": jnp.ones((2, 2)),
    },
    "final_norm": jnp.ones(4),
}


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_what_decays(decay):
    """Without a gradient decay alone moves an array."""
    settings = dataclasses.replace(SETTINGS, decay=decay)
    optimizer = make_optimizer(settings, 8)
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(still, optimizer.init(PARAMS), PARAMS)
    moved = {path[-1].key for path, x in jax.tree_util.tree_leaves_with_path(updates) if np.any(x)}
    vectors = {"attn_norm", "q_bias", "q_norm", "final_norm"}
    assert moved == ({"embed", "q"} if decay == "matrices" else {"embed", "q", *vectors})


def test_every_array_of_a_model_that_is_no_matrix_is_spared():
    config = models.ModelConfig("qwen2", 16, 8, 16, 1, 2, 1, 4, qkv_bias=True, qk_norm=True)
    config = config.replace(lora=models.LoraConfig(2, 4.0))
    declared = models.declare(config)
    for path, spared in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda x: not x, matrices(models.abstract(config)))
    ):
        name = path[-1].key
        here = declared["layers"] if len(path) == 2 else declared
        stacked = 1 if len(path) == 2 else 0
        vector = name.endswith("_bias") or len(here[name].shape) - stacked == 1
        assert spared == vector, name
