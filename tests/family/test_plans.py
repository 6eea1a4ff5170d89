"""Every plan against NumPy; responses packed into rows; what is refused."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from family import METHODS
from family.hybrids import HdpoSettings, KdrlSettings, OpdSettings, SwitchSettings
from family.pull import PULLS, REFUSED
from family.ratios import RlsdSettings
from family.responses import place, rank, running, total
from family.scope import ScopeSettings, scope_weights

from .drawn import CASES, GROUP, case_id, draw, pack, settings_of
from .reference import numpy_plan, numpy_scope_weights

FIELDS = {
    "a": "likelihood_BxT",
    "w": "divergence_BxT",
    "A": "advantage_BxT",
    "rho": "log_ratio_BxT",
}
PACKED = ((3, 0), (5, 1), (2, 4))


def made(name, fields, tokens):
    plan = METHODS[name].plan(settings_of(name, fields), tokens)
    return {
        key: None if getattr(plan, field) is None else np.asarray(getattr(plan, field))
        for key, field in FIELDS.items()
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "fields"), CASES, ids=case_id)
def test_a_plan_equals_numpy(name, fields, seed):
    tokens = draw(seed)
    ours = made(name, fields, tokens)
    theirs = numpy_plan(name, settings_of(name, fields), tokens)
    counted = np.asarray(tokens.counted_BxT)
    for key, expected in theirs.items():
        if ours[key] is None:
            assert not np.any(expected), key
            continue
        got = np.where(counted, ours[key], 0.0)
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize(("name", "fields"), CASES, ids=case_id)
def test_packing_and_padding_change_no_plan(name, fields):
    tokens = draw(2)
    alone = made(name, fields, tokens)
    together = made(name, fields, pack(tokens, PACKED))
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 1), (0, 4))) if x.ndim else x, tokens)
    wider = made(name, fields, padded)
    width = tokens.weights_BxT.shape[1]
    counted = np.asarray(tokens.counted_BxT)
    for key, x in alone.items():
        if x is None:
            continue
        np.testing.assert_allclose(
            np.where(counted, wider[key][:-1, :width], 0),
            np.where(counted, x, 0),
            rtol=1e-6,
            atol=1e-6,
        )
        for r, row in enumerate(PACKED):
            for place_, b in enumerate(row):
                part = together[key][r, place_ * width : (place_ + 1) * width]
                np.testing.assert_allclose(
                    np.where(counted[b], part, 0),
                    np.where(counted[b], x[b], 0),
                    rtol=1e-6,
                    atol=1e-6,
                )


# By method: a field, another value of it, and what else is set.
CHANGES = [
    ("plan_opd", "pull", "forward_kl", {}),
    ("kdrl", "pull", "forward_kl", {}),
    ("kdrl", "form", "advantage", {}),
    ("kdrl", "beta", 0.3, {}),
    ("kdrl", "beta_decay", 1e-4, {}),
    ("kdrl", "beta_min", 2e-3, {"beta_decay": 1e-2}),
    ("kdrl", "gate", "response", {}),
    ("kdrl", "gate", "group", {}),
    ("opd_on_wrong", "pull", "forward_kl", {}),
    ("hdpo", "pull", "forward_kl", {}),
    ("hdpo", "beta", 0.5, {}),
    ("switch", "pull", "forward_kl", {}),
    ("switch", "after", 3, {}),
    ("switch", "mask_ends", False, {}),
    ("rlad", "alpha", 0.3, {}),
    ("rlad", "bound", 0.5, {}),
    ("rlsd", "weight", 0.3, {}),
    ("rlsd", "over", 20, {}),
    ("rlsd", "bound", 0.4, {}),
    ("sdar", "weight", 0.2, {}),
    ("sdar", "sharpness", 1.0, {}),
    ("lightning", "advantage_clip", 0.3, {}),
    ("vopd", "baseline", 0.5, {}),
    ("jsd_opd", "beta", 0.2, {}),
    ("power_opd", "power", 0.2, {}),
    ("g_opd", "extrapolation", 1.0, {}),
    ("eopd", "threshold", 0.3, {}),
    ("eopd", "weight", 0.3, {}),
    ("tip", "share", 0.8, {}),
    ("iw_opd", "bonus", 0.1, {}),
    ("curve", "top", 2, {"top_weight": 2.0}),
    ("curve", "top_weight", 2.0, {"top": 2}),
    ("curve", "first", 2.0, {}),
    ("curve", "last", 2.0, {}),
]


@pytest.mark.parametrize(("name", "field", "value", "others"), CHANGES)
def test_every_field_of_a_plan_changes_it(name, field, value, others):
    tokens = draw(4)
    before, after = (made(name, others | more, tokens) for more in ({}, {field: value}))
    assert any(
        x is not None and (after[key] is None or not np.array_equal(x, after[key]))
        for key, x in before.items()
    )


def test_the_list_of_fields_is_whole():
    """`eopd.top_k` is the signal's, and `scope`'s fields act on the weights of responses."""
    fields = {(n, f.name) for n, m in METHODS.items() for f in dataclasses.fields(m.settings)}
    elsewhere = {("eopd", "top_k"), ("scope", "tau"), ("scope", "group_scale")}
    assert {(name, field) for name, field, *_ in CHANGES} == fields - elsewhere
    assert METHODS["eopd"].signal(settings_of("eopd", {"top_k": 3})).top_k == 3


@pytest.mark.parametrize("scale", ["sum1", "mean1"])
@pytest.mark.parametrize("tau", [0.5, 1.0, 20.0])
def test_scope_weights_equal_numpy(tau, scale):
    s = ScopeSettings(tau=tau, group_scale=scale)
    rng = np.random.default_rng(0)
    log_p, log_q = (-rng.exponential(1.0, 12) for _ in range(2))
    right = np.array([1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1])
    got = np.asarray(scope_weights(s, *(jnp.asarray(x) for x in (log_p, log_q, right)), GROUP))
    np.testing.assert_allclose(got, numpy_scope_weights(s, log_p, log_q, right, GROUP), rtol=1e-5)
    for c in (0, 1):
        sums = np.where(right == c, got, 0).reshape(-1, GROUP).sum(1)
        members = (right == c).reshape(-1, GROUP).sum(1)
        want = members if scale == "mean1" else (members > 0)
        np.testing.assert_allclose(sums, want, rtol=1e-5)


def test_a_surprising_right_response_and_a_likely_wrong_one_weigh_most():
    """Eqs. 4 and 5, against the signs of the released scripts."""
    surprise = jnp.asarray([-3.0, -0.1, -3.0, -0.1])
    right = jnp.asarray([1.0, 1.0, 0.0, 0.0])
    got = scope_weights(ScopeSettings(), surprise, surprise, right, 4)
    assert got[0] > got[1] and got[3] > got[2]
    # A lone response has weight 1 whatever it is.
    lone = scope_weights(ScopeSettings(), surprise, surprise, jnp.asarray([1.0, 0, 0, 0]), 4)
    assert float(lone[0]) == 1


def test_reductions_are_those_of_each_response():
    ids = jnp.asarray([[1, 1, 1, 2, 2, 0], [1, 2, 2, 3, 3, 3]])
    values = jnp.asarray([[1.0, 5.0, 2.0, 4.0, 4.0, 9.0], [7.0, 1.0, 2.0, 0.0, 3.0, 3.0]])
    counted = jnp.asarray([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(total(values, ids), [[8, 8, 8, 8, 8, 9], [7, 3, 3, 6, 6, 6]])
    np.testing.assert_array_equal(running(values, ids), [[1, 6, 8, 4, 8, 9], [7, 1, 3, 0, 3, 6]])
    np.testing.assert_array_equal(place(counted, ids), [[0, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1]])
    np.testing.assert_array_equal(
        np.where(counted, rank(values, counted, ids), -1),
        [[-1, 0, 1, 0, 1, -1], [0, 1, 0, -1, 0, 1]],
    )


@pytest.mark.parametrize("kind", [OpdSettings, KdrlSettings, HdpoSettings, SwitchSettings])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_another_gradient_is_refused_with_the_reason(kind, name):
    with pytest.raises(
        ValueError, match=re.escape(f"plan.pull={name!r}: {REFUSED[name]}")
    ) as error:
        kind(pull=name)
    assert all(right in str(error.value) for right in PULLS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OpdSettings(pull="k4"), r"plan\.pull='k4': choose one of"),
        (lambda: KdrlSettings(beta=1e-4), r"plan\.beta_min=0\.001 is above plan\.beta=0\.0001"),
        (lambda: KdrlSettings(form="k2"), r"plan\.form='k2': choose one of"),
        (lambda: KdrlSettings(gate="row"), r"plan\.gate='row': choose one of"),
        (lambda: KdrlSettings(beta=-1.0), r"plan\.beta=-1\.0 must be at least 0"),
        (lambda: RlsdSettings(weight=1.5), r"plan\.weight=1\.5 must lie in"),
        (lambda: RlsdSettings(over=0), r"plan\.over=0 must be at least 1"),
        (lambda: settings_of("rlad", {"alpha": -0.1}), r"plan\.alpha=-0\.1"),
        (lambda: settings_of("rlad", {"bound": 0.0}), r"plan\.bound=0\.0 must be above 0"),
        (lambda: settings_of("scope", {"tau": 0.0}), r"plan\.tau=0\.0 must be above 0"),
        (lambda: settings_of("jsd_opd", {"beta": 1.0}), r"plan\.beta=1\.0 must lie in \(0, 1\)"),
        (lambda: settings_of("tip", {"share": 0.0}), r"plan\.share=0\.0 must lie in \(0, 1\]"),
        (lambda: settings_of("lightning", {"advantage_clip": -1.0}), r"plan\.advantage_clip=-1\.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
