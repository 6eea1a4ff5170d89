"""L_OPD + lambda L_traj against NumPy, its gradient, and what each field does to it."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.loss import trajectory_loss
from distill.signal import Signal
from topd import GuidanceSettings, TransportSettings, guided_loss, make_targets
from topd.loss import attend_in_windows, window_sight

from . import reference
from . import tiny_probed as tp
from .tiny_probed import PARAMS, QUICK, SIGNAL, STUDENT, TEACHER, TEACHER_PARAMS, VOCAB, WINDOWS

PLAIN = GuidanceSettings()
# Weights that are not those of the probe: rows whose states have moved on.
MOVED = tp.tiny.params(STUDENT, 11)


@functools.cache
def jitted(settings: GuidanceSettings, signal: Signal = SIGNAL, shares=(1.0, 1.0)):
    def loss(params, trajectories, probe, guided):
        return guided_loss(
            params, STUDENT, TEACHER_PARAMS, TEACHER, trajectories, probe, guided, signal, settings,
            shares,
        )  # fmt: skip

    def both(params, *inputs):
        def objective(params):
            sums = loss(params, *inputs)
            return sums.mean, sums

        return jax.value_and_grad(objective, has_aux=True)(params)

    return jax.jit(both, compiler_options=QUICK)


def evaluate(settings, seed=0, params=PARAMS, guided=None, transport=TransportSettings()):  # noqa: B008
    probed = settings if settings.objective != "trajectory" else PLAIN
    trajectories, probe = tp.probe(seed, WINDOWS, transport, probed)
    guided = probe.starts.valid_BxW if guided is None else guided
    (_, sums), grads = jitted(settings)(params, trajectories, probe, guided)
    return trajectories, probe, sums, grads


CASES = [
    {},
    {"plan": "identity"},
    {"context": "teacher"},
    {"plan": "identity", "context": "teacher"},
    {"rows": "plan"},
    {"rows": "scaled"},
    {"rows": "plan", "plan": "identity"},
    {"reduction": "sum"},
    {"lambda_traj": 1.5},
]


@pytest.mark.parametrize("fields", CASES, ids=str)
@pytest.mark.parametrize("marginals", ["uniform", "decaying"])
def test_l_traj_is_that_of_the_equations(fields, marginals):
    settings = GuidanceSettings(**fields)
    transport = TransportSettings(marginals=marginals)
    for seed, params in ((0, PARAMS), (3, MOVED)):
        guided = np.random.default_rng(seed).random((6, WINDOWS.per_rollout)) < 0.6
        trajectories, probe, sums, _ = evaluate(settings, seed, params, guided, transport)
        traj = reference.trajectory_loss(params, trajectories, probe, guided, settings)
        losses = reference.divergences(params, trajectories)
        opd = losses[np.asarray(trajectories.divergence_weights_BxT) != 0].mean()
        assert traj > 0.1
        assert float(sums.metrics["trajectory"]) == pytest.approx(traj, rel=2e-4)
        assert float(sums.metrics["divergence"]) == pytest.approx(opd, rel=2e-4)
        assert float(sums.mean) == pytest.approx(opd + settings.lambda_traj * traj, rel=2e-4)
        assert int(sums.metrics["guided_windows"]) == int(
            np.sum(guided & np.asarray(probe.starts.valid_BxW))
        )


def test_every_field_changes_the_loss():
    decaying = TransportSettings(marginals="decaying")
    plain = float(evaluate(PLAIN, transport=decaying)[2].mean)
    for fields in CASES[1:]:
        assert float(evaluate(GuidanceSettings(**fields), transport=decaying)[2].mean) != plain, (
            fields
        )


def test_targets_are_distributions_whose_repeated_tokens_are_one():
    probe = tp.probe(0)[1]
    made = jax.device_get(make_targets(probe, PLAIN))
    repeated = 0
    for b, w, _, student, teacher, plan in reference.windows(probe):
        found, states = reference.targets(student, teacher, plan, PLAIN)
        assert states == student
        for i, (target, _) in enumerate(found):
            dense = np.zeros(VOCAB)
            np.add.at(dense, made.ids_BxWxK[b, w], made.weights_BxWxKxK[b, w, i])
            expected = np.zeros(VOCAB)
            for token, y in target.items():
                expected[token] = y
            np.testing.assert_allclose(dense, expected, atol=1e-6)
            entropy = sum(y * np.log(y) for y in target.values())
            assert made.negative_entropy_BxWxK[b, w, i] == pytest.approx(entropy, abs=1e-5)
            repeated += len(target) < len(teacher)
        assert not np.any(made.totals_BxWxK[b, w, len(student) :])
    assert repeated > 3
    assert not np.any(made.totals_BxWxK[~np.asarray(probe.starts.valid_BxW)])


def dense_loss(params, trajectories, probe, guided, settings):
    """The same from rows of their own, one per window, and dense logits."""
    t = trajectories
    logits = models.forward(params, STUDENT, t.tokens_BxT)[:, :-1, :VOCAB]
    theirs = models.forward(TEACHER_PARAMS, TEACHER, t.tokens_BxT)[:, :-1, :VOCAB]
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(theirs)
    weights = t.divergence_weights_BxT[:, 1:]
    opd = jnp.sum(weights * jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)) / jnp.sum(weights)
    traj, count = 0.0, 0
    for b, w, at, student, teacher, plan in reference.windows(probe):
        if not guided[b, w]:
            continue
        found, states = reference.targets(student, teacher, plan, settings)
        row = jnp.concatenate([t.tokens_BxT[b, :at], jnp.asarray(states)])[None]
        own = jax.nn.log_softmax(models.forward(params, STUDENT, row)[0, :, :VOCAB])
        for i, (target, weight) in enumerate(found):
            for token, y in target.items():
                traj += weight * y * (np.log(y) - own[at - 1 + i, token])
            count += weight > 0
    return opd + settings.lambda_traj * traj / count


def test_its_gradient_is_that_of_windows_in_rows_of_their_own():
    """Through the whole prefix, and none through plans, targets or the teacher."""
    settings = GuidanceSettings(lambda_traj=0.7)
    guided = np.asarray(tp.probe(0)[1].starts.valid_BxW) & (np.arange(6) != 4)[:, None]
    trajectories, probe, sums, grads = evaluate(settings, guided=guided)
    loss, expected = jax.value_and_grad(dense_loss)(PARAMS, trajectories, probe, guided, settings)
    assert float(sums.mean) == pytest.approx(float(loss), rel=1e-5)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        error = np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(np.asarray(y)).max()
        assert error < 1e-4, (jax.tree_util.keystr(path), error)


def test_probing_inside_the_loss_gives_the_same_gradient():
    """G, targets and D_OT are constants, though they are made of the same parameters."""
    trajectories = tp.rollouts(0)
    contextual = TransportSettings(embedding="contextual")

    def objective(params, teacher_params, inner):
        probe = tp.prober(WINDOWS, contextual)(
            params if inner else PARAMS, teacher_params, trajectories, jnp.arange(6), tp.KEY
        )
        guided = probe.distance_BxW > 0.5
        return guided_loss(
            params, STUDENT, teacher_params, TEACHER, trajectories, probe, guided, SIGNAL, PLAIN
        ).mean

    gradient = jax.jit(
        jax.grad(objective, argnums=(0, 1)), static_argnums=2, compiler_options=QUICK
    )
    inside, outside = (gradient(PARAMS, TEACHER_PARAMS, inner) for inner in (True, False))
    for x, y in zip(jax.tree.leaves(inside[0]), jax.tree.leaves(outside[0]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert all(not np.any(x) for x in jax.tree.leaves(inside[1]))


def test_without_guided_windows_it_is_opd():
    trajectories, probe = tp.probe(0)
    none = jnp.zeros_like(probe.starts.valid_BxW)
    _, _, sums, grads = evaluate(PLAIN, guided=none)
    expected, opd = jax.value_and_grad(
        lambda p: trajectory_loss(
            p, STUDENT, trajectories, TEACHER_PARAMS, TEACHER, SIGNAL
        ).mean
    )(PARAMS)  # fmt: skip
    assert float(sums.mean) == pytest.approx(float(expected), rel=1e-5)
    assert float(sums.metrics["trajectory"]) == 0
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(opd), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_shares_split_the_gradient():
    trajectories, probe = tp.probe(0)
    guided = probe.starts.valid_BxW
    whole, opd, traj = (
        jitted(PLAIN, SIGNAL, shares)(PARAMS, trajectories, probe, guided)[1]
        for shares in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    )
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-3, atol=1e-5), whole, opd, traj
    )


@pytest.mark.parametrize(
    "signal",
    [
        Signal(support="top_k", top_k=4),
        Signal(support="sampled", form="advantage"),
        Signal(divergence="jsd"),
    ],
    ids=lambda s: f"{s.divergence}-{s.support}",
)
def test_l_opd_is_any_signal(signal):
    trajectories, probe = tp.probe(0)
    none = jnp.zeros_like(probe.starts.valid_BxW)
    (_, sums), _ = jitted(PLAIN, signal)(PARAMS, trajectories, probe, none)
    expected = trajectory_loss(PARAMS, STUDENT, trajectories, TEACHER_PARAMS, TEACHER, signal)
    assert float(sums.mean) == pytest.approx(float(expected.mean), rel=1e-5)


@pytest.mark.parametrize("objective", ["cap_low", "cap_high"])
@pytest.mark.parametrize("cap", ["scale", "clip"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_caps_are_those_of_the_plain_reference(objective, cap, share):
    settings = GuidanceSettings(objective=objective, cap=cap, cap_share=share)
    trajectories, probe, sums, grads = evaluate(settings)
    losses = reference.divergences(PARAMS, trajectories)
    eligible = np.asarray(trajectories.divergence_weights_BxT) != 0
    chosen = reference.capped(losses, trajectories, probe, settings)
    assert chosen and int(sums.metrics["capped"]) == len(chosen)
    capped, factors = losses.copy(), eligible.astype(np.float64)
    for b, at in chosen:
        median = np.median(losses[b][eligible[b]])
        capped[b, at] = median
        factors[b, at] = median / losses[b, at] if cap == "scale" else 0.0
    assert float(sums.mean) == pytest.approx(capped[eligible].mean(), rel=2e-4)
    assert float(sums.metrics["divergence"]) == pytest.approx(losses[eligible].mean(), rel=2e-4)
    # Its gradient is that of OPD with these weights.
    weighted = trajectories.replace(divergence_weights_BxT=jnp.asarray(factors, jnp.float32))
    expected = jax.grad(
        lambda p: trajectory_loss(p, STUDENT, weighted, TEACHER_PARAMS, TEACHER, SIGNAL).total
    )(PARAMS)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y / eligible.sum(), rtol=1e-3, atol=1e-5)


def test_low_and_high_caps_take_different_tokens():
    low, high = (
        {
            (b, at)
            for b, at in reference.capped(
                reference.divergences(PARAMS, tp.rollouts(0)),
                *tp.probe(0, WINDOWS, TransportSettings(), dataclasses.replace(PLAIN, objective=o)),
                dataclasses.replace(PLAIN, objective=o),
            )
        }
        for o in ("cap_low", "cap_high")
    )
    assert low and high and not low & high


def test_the_rollout_sees_no_window_and_a_window_no_other():
    """Scores of rows with windows, by the mask itself."""
    sees = np.asarray(window_sight(jnp.asarray([[3, 1]]), 2, 4))[0]
    assert sees.astype(int).tolist() == [
        [1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]
    attend = attend_in_windows(jnp.ones((1, 4), jnp.int32), jnp.asarray(sees)[None], STUDENT)
    x = jax.random.normal(jax.random.key(0), (1, 8, 2, 8))
    keys = jax.random.normal(jax.random.key(1), (1, 8, 1, 8))
    changed = keys.at[:, 4:].add(1.0)
    plain, other = (attend(x, k, k) for k in (keys, changed))
    np.testing.assert_array_equal(plain[:, :4], other[:, :4])
    assert np.all(np.any(np.asarray(plain[:, 4:] != other[:, 4:]), axis=(0, 2, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "none"}, r"guidance\.objective='none'"),
        ({"rule": "both"}, r"guidance\.rule='both'"),
        ({"plan": "exact"}, r"guidance\.plan='exact'"),
        ({"context": "both"}, r"guidance\.context='both'"),
        ({"rows": "two"}, r"guidance\.rows='two'"),
        ({"reduction": "max"}, r"guidance\.reduction='max'"),
        ({"cap": "drop"}, r"guidance\.cap='drop'"),
        ({"lambda_traj": -0.1}, r"guidance\.lambda_traj=-0\.1 must be 0 or more"),
        ({"high_quantile": 1.5}, r"guidance\.high_quantile=1\.5 must be in \[0, 1\]"),
        ({"buffer": 0}, r"guidance\.buffer=0 must be at least 1"),
        ({"min_buffer": 600}, r"guidance\.min_buffer=600 must be in \[1, guidance\.buffer\]"),
        ({"cap_share": 2.0}, r"guidance\.cap_share=2\.0"),
        ({"gradient_ratio_every": -1}, r"guidance\.gradient_ratio_every=-1"),
        (
            {"objective": "cap_low", "gradient_ratio_every": 5},
            r"guidance\.gradient_ratio_every=5 with guidance\.objective='cap_low'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GuidanceSettings(**fields)
