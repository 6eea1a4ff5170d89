"""The train step in a loop of nothing but jax and optax, and what each of its fields changes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import motab
from distill.train.state import create_state
from distill.trajectories import Source

from . import tiny
from .test_rollout_reference import BASE

SETTINGS = dataclasses.replace(BASE, gamma_0=0.12)
ROWS = 16


def build(settings):
    rollout = jax.jit(
        motab.make_rollout(
            tiny.STUDENT, tiny.TEACHER, settings, tiny.TABLE, tiny.DELIMITER_IDS,
            tiny.REVISION_IDS, (tiny.EOS,),
        )
    )  # fmt: skip
    optimizer = optax.adam(3e-3)
    step = motab.make_train_step(tiny.STUDENT, tiny.TEACHER, settings, optimizer)
    params = tiny.params(tiny.STUDENT, 1, 2.0)
    state = create_state(params, optimizer)
    return rollout, jax.jit(step), state


@pytest.fixture(scope="module")
def teacher():
    return tiny.params(tiny.TEACHER, 2, 1.0)


@pytest.mark.slow
def test_a_loop_of_ones_own_learns(teacher):
    rollout, step, state = build(SETTINGS)
    prompts, lengths = tiny.prompts(0, ROWS)
    distances = []
    for i in range(40):
        key = jax.random.fold_in(jax.random.key(0), i)
        trajectories, record = rollout(
            state.params, teacher, prompts, lengths, jnp.arange(ROWS), key
        )
        state, metrics = step(state, teacher, trajectories)
        assert np.isfinite(metrics["loss"])
        distances.append(float(motab.rollout_metrics(trajectories, record)["reverse_kl"]))
    assert int(state.step) == 40
    assert np.mean(distances[-5:]) < 0.7 * np.mean(distances[:5]), distances


@pytest.mark.slow
def test_with_gamma_0_and_a_divergence_it_is_on_policy_distillation(teacher):
    """Every student token carries the divergence, none a likelihood, and it falls."""
    settings = dataclasses.replace(SETTINGS, gamma_0=0.0, safe_loss="reverse_kl")
    rollout, step, state = build(settings)
    prompts, lengths = tiny.prompts(0, ROWS)
    losses = []
    for i in range(25):
        key = jax.random.fold_in(jax.random.key(0), i)
        trajectories, _ = rollout(state.params, teacher, prompts, lengths, jnp.arange(ROWS), key)
        by_student = trajectories.source_BxT == Source.STUDENT
        np.testing.assert_array_equal(trajectories.divergence_weights_BxT, by_student)
        assert not np.any(trajectories.likelihood_weights_BxT)
        state, metrics = step(state, teacher, trajectories)
        losses.append(float(metrics["divergence"]))
        assert float(metrics["loss"]) == pytest.approx(losses[-1])
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.slow
def test_safe_loss_moves_the_weight_of_steps_that_passed(teacher):
    prompts, lengths = tiny.prompts(0, ROWS)
    inputs = (tiny.params(tiny.STUDENT, 1, 2.0), teacher, prompts, lengths, jnp.arange(ROWS))
    for loss_on in ("eq11", "response", "before_root"):
        plain = dataclasses.replace(SETTINGS, loss_on=loss_on)
        rows = {}
        for safe_loss in ("likelihood", "jsd"):
            rollout, *_ = build(dataclasses.replace(plain, safe_loss=safe_loss))
            rows[safe_loss], _ = rollout(*inputs, jax.random.key(0))
        total = rows["jsd"].likelihood_weights_BxT + rows["jsd"].divergence_weights_BxT
        np.testing.assert_array_equal(total, rows["likelihood"].likelihood_weights_BxT)
        moved = np.asarray(rows["jsd"].divergence_weights_BxT) > 0
        source = np.asarray(rows["jsd"].source_BxT)
        assert np.all(np.isin(source[moved], (Source.STUDENT, Source.FLAWED)))
        # What stays behind of the student's is the breaching step, under `response` alone.
        left = np.isin(source, (Source.STUDENT, Source.FLAWED)) & (
            np.asarray(rows["jsd"].likelihood_weights_BxT) > 0
        )
        assert np.any(left) == (loss_on == "response")


@pytest.mark.slow
def test_jsd_beta_reaches_the_loss(teacher):
    settings = dataclasses.replace(SETTINGS, safe_loss="jsd", jsd_beta=0.5)
    rollout, step, state = build(settings)
    prompts, lengths = tiny.prompts(0, 4)
    trajectories, _ = rollout(
        state.params, teacher, prompts, lengths, jnp.arange(4), jax.random.key(0)
    )
    half = step(state, teacher, trajectories)[1]["divergence"]
    _, step, _ = build(dataclasses.replace(settings, jsd_beta=0.1))
    assert float(step(state, teacher, trajectories)[1]["divergence"]) != pytest.approx(float(half))


def test_metrics_count_what_the_trajectories_hold(teacher):
    rollout, _, state = build(SETTINGS)
    prompts, lengths = tiny.prompts(0, ROWS)
    trajectories, record = jax.device_get(
        rollout(state.params, teacher, prompts, lengths, jnp.arange(ROWS), jax.random.key(0))
    )
    m = {k: float(v) for k, v in motab.rollout_metrics(trajectories, record).items()}
    breached = record.breach_B >= 0
    assert m["backtracked"] == pytest.approx(np.mean(breached & ~record.dropped_B))
    assert m["breach_step"] == pytest.approx(np.mean(record.breach_B[breached]))
    depth = (record.breach_B - record.root_B)[breached]
    assert m["backtrack_depth"] == pytest.approx(np.mean(depth))
    judged = np.concatenate([record.values_BxL[b, :n] for b, n in enumerate(record.num_steps_B)])
    assert m["value_mean"] == pytest.approx(np.mean(judged), rel=1e-5)
    for source in (Source.STUDENT, Source.FLAWED, Source.REVISION, Source.TEACHER):
        assert m[f"tokens_{source.name.lower()}"] == np.sum(trajectories.source_BxT == source)
    ends = [record.step_ends_BxL[b, n - 1] if n else 0 for b, n in enumerate(record.num_steps_B)]
    nll = np.concatenate([record.scores.nll[b, :e] for b, e in enumerate(ends)])
    assert m["nll_teacher"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert m["rows"] == ROWS
