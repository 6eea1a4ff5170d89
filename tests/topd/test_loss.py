"""L_OPD + lambda L_traj against NumPy, its gradient, and what each field does to it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.losses.signal import Signal
from topd import GuidanceSettings, TransportSettings, guided_loss, make_targets
from topd.loss import attend_in_windows, window_sight

from . import reference
from . import tiny_probed as tp
from .tiny_probed import PARAMS, QUICK, SIGNAL, STUDENT, TEACHER, TEACHER_PARAMS, VOCAB, WINDOWS

PLAIN = GuidanceSettings()
# Weights that are not those of the probe: rows whose states have moved on.
MOVED = tp.tiny.params(STUDENT, 11)


def evaluate(settings, seed=0, params=PARAMS, guided=None, transport=TransportSettings()):  # noqa: B008
    probed = settings if settings.objective != "trajectory" else PLAIN
    trajectories, probe = tp.probe(seed, WINDOWS, transport, probed)
    guided = probe.starts.valid_BxW if guided is None else guided
    (_, sums), grads = tp.guided(settings)(params, trajectories, probe, guided)
    return trajectories, probe, sums, grads


CASES = [
    {},
    {"plan": "identity", "context": "teacher"},
    {"rows": "plan", "reduction": "sum", "lambda_traj": 1.5},
]
MORE = [
    {"plan": "identity"},
    {"context": "teacher"},
    {"rows": "plan"},
    {"rows": "scaled"},
    {"rows": "plan", "plan": "identity"},
    {"reduction": "sum"},
    {"lambda_traj": 1.5},
]


@pytest.mark.parametrize(
    "fields", [*CASES, *(pytest.param(x, marks=pytest.mark.slow) for x in MORE)], ids=str
)
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


@pytest.mark.slow
def test_every_field_changes_the_loss():
    decaying = TransportSettings(marginals="decaying")
    plain = float(evaluate(PLAIN, transport=decaying)[2].mean)
    for fields in MORE:
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


def dense_loss(trajectories, probe, guided, settings):
    """The same of the parameters from rows of their own, one per window, and dense logits."""
    t = trajectories
    rows, terms, count = [], [], 0  # terms: row, position, token, weight, log of the target
    for b, w, at, student, teacher, plan in reference.windows(probe):
        if not guided[b, w]:
            continue
        found, states = reference.targets(student, teacher, plan, settings)
        row = np.zeros(20, np.int32)
        row[: at + len(states)] = [*np.asarray(t.tokens_BxT[b, :at]), *states]
        for i, (target, weight) in enumerate(found):
            terms += [(len(rows), at - 1 + i, x, weight * y, np.log(y)) for x, y in target.items()]
            count += weight > 0
        rows.append(row)
    n, p, x, y, log_y = (np.array(column) for column in zip(*terms, strict=True))

    def loss(params):
        def log_softmax(params, config, tokens):
            return jax.nn.log_softmax(models.forward(params, config, tokens)[..., :VOCAB])

        log_p = log_softmax(params, STUDENT, t.tokens_BxT)[:, :-1]
        log_q = log_softmax(TEACHER_PARAMS, TEACHER, t.tokens_BxT)[:, :-1]
        weights = t.divergence_weights_BxT[:, 1:]
        opd = jnp.sum(weights * jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)) / jnp.sum(weights)
        own = log_softmax(params, STUDENT, np.stack(rows))[n, p, x]
        return opd + settings.lambda_traj * jnp.sum(y * (log_y - own)) / count

    return jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)


@pytest.mark.slow
def test_its_gradient_is_that_of_windows_in_rows_of_their_own():
    """Through the whole prefix, and none through plans, targets or the teacher."""
    settings = GuidanceSettings(lambda_traj=0.7)
    guided = np.asarray(tp.probe(0)[1].starts.valid_BxW) & (np.arange(6) != 4)[:, None]
    trajectories, probe, sums, grads = evaluate(settings, guided=guided)
    loss, expected = dense_loss(trajectories, probe, guided, settings)(PARAMS)
    assert float(sums.mean) == pytest.approx(float(loss), rel=1e-5)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        error = np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(np.asarray(y)).max()
        assert error < 1e-4, (jax.tree_util.keystr(path), error)


@pytest.mark.slow
def test_probing_inside_the_loss_gives_the_same_gradient():
    """G, targets and D_OT are constants, though they are made of the same parameters."""
    trajectories = tp.rollouts(0)
    contextual = TransportSettings(embedding="contextual")

    def objective(params, teacher_params, inner):
        probe = tp.plain_prober(WINDOWS, contextual)(
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
    (_, expected), opd = tp.opd()(PARAMS, trajectories)
    assert float(sums.mean) == pytest.approx(float(expected), rel=1e-5)
    assert float(sums.metrics["trajectory"]) == 0
    tokens = float(np.sum(trajectories.divergence_weights_BxT))
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(opd), strict=True):
        np.testing.assert_allclose(x, y / tokens, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_shares_split_the_gradient():
    trajectories, probe = tp.probe(0)
    guided = probe.starts.valid_BxW
    whole, opd, traj = (
        tp.guided(PLAIN, SIGNAL, shares)(PARAMS, trajectories, probe, guided)[1]
        for shares in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    )
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-3, atol=1e-5), whole, opd, traj
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "signal",
    [
        Signal(support="sampled", form="advantage"),
        Signal(support="top_k", top_k=4),
        Signal(divergence="jsd"),
    ],
    ids=lambda s: f"{s.divergence}-{s.support}",
)
def test_l_opd_is_any_signal(signal):
    trajectories, probe = tp.probe(0)
    none = jnp.zeros_like(probe.starts.valid_BxW)
    (_, sums), _ = tp.guided(PLAIN, signal)(PARAMS, trajectories, probe, none)
    (_, expected), _ = tp.opd(signal)(PARAMS, trajectories)
    assert float(sums.mean) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "cap", "share"),
    [
        ("cap_high", "clip", 0.6),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("cap_low", "scale", 0.3),
                ("cap_low", "clip", 0.3),
                ("cap_low", "scale", 0.6),
                ("cap_high", "scale", 0.3),
            )
        ),
    ],
)
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
    _, expected = tp.opd()(PARAMS, weighted)
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
        ({"lambda_traj": -0.1}, r"guidance\.lambda_traj=-0\.1 must be at least 0"),
        ({"high_quantile": 1.5}, r"guidance\.high_quantile=1\.5 must lie in \[0, 1\]"),
        ({"buffer": 0}, r"guidance\.buffer=0 must be at least 1"),
        ({"min_buffer": 600}, r"guidance\.min_buffer=600 exceeds guidance\.buffer=512"),
        ({"least_distance": -0.1}, r"guidance\.least_distance=-0\.1 must be at least 0"),
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
