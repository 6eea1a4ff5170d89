"""The train step: which windows are guided, what it carries, and its metrics."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill.train.state import create_state
from topd import (
    GuidanceSettings,
    ProbedBatch,
    TransportSettings,
    init_method_state,
    make_train_step,
)

from . import tiny_probed as tp
from .tiny_probed import PARAMS, QUICK, SIGNAL, STUDENT, TEACHER, TEACHER_PARAMS, WINDOWS

OPTIMIZER = optax.sgd(0.1)
LOSS = GuidanceSettings()
RULE = GuidanceSettings(buffer=6, min_buffer=4, gradient_ratio_every=2)


@functools.cache
def jitted(settings):
    return jax.jit(
        make_train_step(STUDENT, TEACHER, settings, SIGNAL, OPTIMIZER), compiler_options=QUICK
    )


def run(settings, steps=3):
    state = create_state(PARAMS, OPTIMIZER, init_method_state(settings))
    history = []
    for seed in range(steps):
        batch = ProbedBatch(*tp.probe(seed, WINDOWS, TransportSettings(), settings))
        before = state
        state, metrics = jitted(settings)(state, TEACHER_PARAMS, batch)
        history.append((before, batch, {k: float(v) for k, v in metrics.items()}))
    return history, state


def test_windows_above_the_running_threshold_are_guided():
    history, state = run(RULE)
    held: list[float] = []
    for before, batch, metrics in history:
        probe = batch.probe
        held += np.asarray(probe.low_distance_Rx1)[np.asarray(probe.low_valid_Rx1)].tolist()
        latest = held[-RULE.buffer :]
        bound = np.quantile(np.float32(latest), 0.75) if len(latest) >= 4 else np.inf
        valid = np.asarray(probe.starts.valid_BxW)
        guided = valid & (np.asarray(probe.distance_BxW) > bound)
        assert metrics["guided_windows"] == guided.sum()
        assert metrics["windows"] == valid.sum()
        assert metrics["high"] == pytest.approx(guided.sum() / valid.sum())
        assert metrics["threshold"] == pytest.approx(bound if np.isfinite(bound) else 0.0, abs=1e-6)
        assert metrics["low_distance"] == pytest.approx(np.mean(latest), abs=1e-6)
        assert metrics["distance"] == pytest.approx(
            np.asarray(probe.distance_BxW)[valid].mean(), abs=1e-6
        )
        assert metrics["candidate_loss"] == pytest.approx(
            np.asarray(probe.losses_BxW)[valid].mean(), rel=1e-6
        )
        assert metrics["loss"] == pytest.approx(
            metrics["divergence"] + 0.1 * metrics["trajectory"], rel=1e-5
        )
        (_, sums), _ = tp.guided(LOSS)(before.params, batch.trajectories, probe, guided)
        assert metrics["loss"] == pytest.approx(float(sums.mean), rel=1e-5)
    # The first batch has three low-loss positions: too few. Then some windows pass, and some do
    # not.
    assert history[0][2]["guided_windows"] == 0 == history[0][2]["trajectory"]
    assert all(0 < m["high"] < 1 for _, _, m in history[1:])
    assert int(state.method_state["near_future"].low.count) == len(held)


@pytest.mark.slow
def test_the_ratio_of_gradients_is_measured_now_and_then():
    history, _ = run(RULE, steps=4)
    ratios = [m["gradient_ratio"] for *_, m in history]
    assert ratios[0] == ratios[1] == 0 < ratios[2] == ratios[3]
    before, batch, _ = history[2]
    held = before.method_state["near_future"].low
    lows = np.asarray(held.values_N)[: int(held.count)]
    new = np.asarray(batch.probe.low_distance_Rx1)[np.asarray(batch.probe.low_valid_Rx1)]
    bound = np.quantile(np.concatenate([lows, new])[-RULE.buffer :], 0.75)
    guided = batch.probe.starts.valid_BxW & (batch.probe.distance_BxW > bound)

    def norm(shares):
        inputs = before.params, batch.trajectories, batch.probe, guided
        return float(optax.tree.norm(tp.guided(LOSS, SIGNAL, shares)(*inputs)[1]))

    assert ratios[2] == pytest.approx(norm((0.0, 1.0)) / norm((1.0, 0.0)), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"rule": "loss"},
        {"high_quantile": 0.0},
        {"buffer": 4},
        {"min_buffer": 1},
        {"least_distance": 1.0},
    ],
    ids=str,
)
def test_the_rule_follows_its_fields(fields):
    base = {"buffer": 6, "min_buffer": 4}
    plain = [m["guided_windows"] for *_, m in run(GuidanceSettings(**base))[0]]
    other, _ = run(GuidanceSettings(**{**base, **fields}))
    assert [m["guided_windows"] for *_, m in other] != plain
    if fields == {"rule": "loss"}:
        assert all(m["guided_windows"] == m["windows"] for *_, m in other)
        assert "threshold" not in other[0][2]


@pytest.mark.parametrize("objective", ["cap_low", pytest.param("cap_high", marks=pytest.mark.slow)])
def test_capped_arms_guide_nothing(objective):
    history, state = run(GuidanceSettings(objective=objective), steps=1)
    metrics = history[0][2]
    assert metrics["capped"] >= 1 and metrics["loss"] < metrics["divergence"]
    assert "trajectory" not in metrics and "threshold" not in metrics
    assert int(state.method_state["near_future"].low.count) == 0


def test_of_a_batch_that_is_not_finite_nothing_is_kept():
    state = create_state(PARAMS, OPTIMIZER, init_method_state(RULE))
    trajectories, probe = tp.probe(0, WINDOWS, TransportSettings(), RULE)
    broken = probe.replace(teacher_hidden_BxTxD=probe.teacher_hidden_BxTxD * jnp.nan)
    new, metrics = jitted(RULE)(state, TEACHER_PARAMS, ProbedBatch(trajectories, broken))
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, new.replace(step=state.step), state)


def test_a_batch_without_a_response_changes_nothing():
    trajectories = tp.rollouts(0)
    none = trajectories.replace(
        divergence_weights_BxT=jnp.zeros_like(trajectories.divergence_weights_BxT)
    )
    probe = tp.prober(WINDOWS, TransportSettings(), RULE)(
        PARAMS, TEACHER_PARAMS, none, jnp.arange(6), tp.KEY
    )
    state = create_state(PARAMS, OPTIMIZER, init_method_state(RULE))
    new, metrics = jitted(RULE)(state, TEACHER_PARAMS, ProbedBatch(none, probe))
    assert all(np.isfinite(x) for x in metrics.values())
    assert metrics["windows"] == metrics["loss"] == metrics["grad_norm"] == 0
    assert metrics["idle"] == 1 and metrics["idle_rows"] == 6
    jax.tree.map(np.testing.assert_array_equal, new.params, PARAMS)
