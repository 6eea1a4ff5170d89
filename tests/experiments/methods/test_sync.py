"""When the rollout's weights become the trained ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.train.state import TrainState
from experiments.methods.sync import init_method_state, refreshing, rollout_params


def add(state, amount):
    new = state.replace(
        step=state.step + 1, params=jax.tree.map(lambda x: x + amount, state.params)
    )
    return new, {"loss": amount}


@pytest.mark.parametrize("sync_every", [1, 2, 3])
def test_the_rollout_lags_by_less_than_sync_every_updates(sync_every):
    params = {"w": jnp.zeros(2)}
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, init_method_state(params, sync_every))
    step = jax.jit(refreshing(add, sync_every))
    seen = []
    for _ in range(7):
        seen.append(float(rollout_params(state)["w"][0]))
        state, metrics = step(state, 1.0)
        assert metrics["loss"] == 1.0
    assert seen == [i - i % sync_every for i in range(7)]
    np.testing.assert_array_equal(state.params["w"], 7.0)


def test_always_fresh_weights_are_no_copy():
    assert init_method_state({"w": jnp.zeros(2)}, 1) == {}
