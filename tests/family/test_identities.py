"""Where methods meet: the special cases of the catalogue, token by token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from family import METHODS, Tokens
from family.loss import token_loss
from family.scope import ScopeSettings, scope_weights

from .drawn import draw, settings_of

LOW, HIGH = 0.2, 0.28


def slope(name: str, fields: dict, t: Tokens) -> np.ndarray:
    """dL / d log p of every token [B, T], what of the loss is no D, and w beside it."""
    settings = settings_of(name, fields)

    def loss(log_p):
        live = t.replace(log_p_BxT=log_p)
        plan = METHODS[name].plan(settings, live)
        return jnp.sum(t.weights_BxT * token_loss(plan, live, LOW, HIGH)[0])

    return np.asarray(jax.jit(jax.grad(loss))(t.log_p_BxT))


def fresh(t: Tokens) -> Tokens:
    """As the current weights would have written it."""
    return t.replace(log_b_BxT=t.log_p_BxT)


def without_rewards(t: Tokens) -> Tokens:
    return t.replace(advantage_BxT=jnp.zeros_like(t.advantage_BxT))


def every(t: Tokens, name: str, value: float) -> Tokens:
    return t.replace(**{name: jnp.full_like(t.right_BxT, value)})


GRPO, OPD = ("plan_grpo", {}), ("plan_opd", {})
ALL_RIGHT = lambda t: every(every(t, "right_BxT", 1.0), "group_right_BxT", 1.0)  # noqa: E731
ALL_WRONG = lambda t: every(every(t, "right_BxT", 0.0), "group_right_BxT", 0.0)  # noqa: E731
CONTEXT_IS_PROMPT = lambda t: t.replace(log_q_BxT=t.log_p_BxT)  # noqa: E731

# A method as another one, to the last bit: what is done to the tokens first, and a factor.
EXACT = [
    ("kdrl", {"beta": 0.0, "beta_min": 0.0}, GRPO, lambda t: t, 1),
    ("kdrl", {"beta": 0.0, "beta_min": 0.0, "form": "advantage"}, GRPO, lambda t: t, 1),
    ("kdrl", {"beta": 0.5, "beta_min": 0.5, "form": "advantage"}, OPD, without_rewards, 0.5),
    ("kdrl", {"beta": 0.5, "beta_min": 0.5}, OPD, lambda t: fresh(without_rewards(t)), 0.5),
    ("kdrl", {"beta": 0.5, "gate": "response"}, GRPO, ALL_RIGHT, 1),
    ("kdrl", {"beta": 0.5, "gate": "group"}, GRPO, lambda t: every(t, "group_right_BxT", 1.0), 1),
    ("opd_on_wrong", {}, GRPO, ALL_RIGHT, 1),
    ("opd_on_wrong", {}, OPD, ALL_WRONG, 1),
    ("hdpo", {}, GRPO, lambda t: every(t, "group_right_BxT", 1.0), 1),
    ("hdpo", {"beta": 0.5}, OPD, lambda t: without_rewards(ALL_WRONG(t)), 0.5),
    ("switch", {"after": 0}, GRPO, lambda t: t, 1),
    ("switch", {"after": 99, "mask_ends": False}, OPD, lambda t: t, 1),
    ("rlad", {"alpha": 1.0}, GRPO, lambda t: t, 1),
    ("rlsd", {"weight": 0.0}, GRPO, lambda t: t, 1),
    ("rlsd", {}, GRPO, CONTEXT_IS_PROMPT, 1),
    ("rlsd", {}, GRPO, lambda t: t.replace(step=jnp.asarray(50)), 1),
    ("sdar", {"weight": 0.0}, GRPO, lambda t: t, 1),
    ("scope", {}, OPD, lambda t: fresh(every(ALL_WRONG(t), "row_weight_BxT", 1.0)), 1),
    ("lightning", {"advantage_clip": 0.0}, OPD, fresh, 1),
    ("lightning", {"advantage_clip": 1e6}, OPD, fresh, 1),
    ("vopd", {"baseline": 0.0}, OPD, lambda t: t, 1),
    ("g_opd", {"extrapolation": 1.0}, OPD, lambda t: t, 1),
    ("eopd", {"threshold": 1e6}, OPD, lambda t: t, 1),
    ("tip", {"share": 1.0}, OPD, lambda t: t, 1),
    ("iw_opd", {"bonus": 0.0}, OPD, lambda t: t, 1),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "fields", "other", "change", "factor"), EXACT)
def test_a_special_case_is_another_method_to_the_last_bit(
    name, fields, other, change, factor, seed
):
    tokens = change(draw(seed))
    want = factor * slope(*other, tokens)
    np.testing.assert_array_equal(slope(name, fields, tokens), want)
    assert np.any(want) or (other == GRPO and not np.any(tokens.advantage_BxT))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_rlad_with_the_writer_as_its_teacher_is_grpo(alpha):
    tokens = draw(0)
    near = jnp.clip(tokens.log_ratio_BxT, -0.99, 0.99)
    tokens = tokens.replace(log_b_BxT=tokens.log_p_BxT - near, log_q_BxT=tokens.log_p_BxT - near)
    got = slope("rlad", {"alpha": alpha}, tokens)
    np.testing.assert_allclose(got, slope("plan_grpo", {}, tokens), rtol=1e-6, atol=1e-6)


def test_rlad_at_the_first_step_has_no_gradient_far_from_the_teacher():
    """alpha .5, clips .2 and .28: A^ > 0 and d < -.494, or A^ < 0 and d > .446."""
    d = jnp.linspace(-3, 3, 601)[None]
    zeros, ones = jnp.zeros_like(d), jnp.ones_like(d)
    for sign in (1.0, -1.0):
        tokens = Tokens(
            ones, ones.astype(int), -4 * ones, -4 * ones, log_q_BxT=d - 4, advantage_BxT=sign * ones
        )
        got = slope("rlad", {}, tokens)[0] != 0
        at = np.asarray(d[0])
        beyond = at < -0.4937 if sign > 0 else at > 0.4463
        np.testing.assert_array_equal(~got, beyond)
        plan = METHODS["rlad"].plan(settings_of("rlad", {"alpha": 0.3}), tokens)
        assert float(jnp.max(jnp.abs(plan.log_ratio_BxT))) <= 0.7 + 1e-6
    assert not np.any(slope("rlad", {}, tokens.replace(advantage_BxT=zeros)))


@pytest.mark.parametrize("name", ["rlad", "rlsd", "plan_grpo"])
def test_a_group_without_signal_trains_nothing(name):
    assert not np.any(slope(name, {}, without_rewards(draw(1))))


@pytest.mark.parametrize("name", ["kdrl", "sdar"])
def test_and_is_still_taught_where_the_teacher_is_added(name):
    assert np.any(slope(name, {}, without_rewards(draw(1))))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rlsd_keeps_the_sign_of_the_reward_and_its_size_within_the_bound(seed):
    tokens = draw(seed, step=0)
    for weight, bound in ((0.5, 0.2), (1.0, 0.9)):
        plan = METHODS["rlsd"].plan(settings_of("rlsd", {"weight": weight, "bound": bound}), tokens)
        ours, reward = np.asarray(plan.advantage_BxT), np.asarray(tokens.advantage_BxT)
        np.testing.assert_array_equal(np.sign(ours), np.sign(reward))
        there = reward != 0
        assert np.all(np.abs(ours[there] / reward[there] - 1) <= weight * bound + 1e-6)


def test_for_large_weights_kdrl_points_where_opd_does():
    tokens = fresh(draw(0))
    got = slope("kdrl", {"beta": 1e7, "beta_decay": 0.0}, tokens).ravel() / 1e7
    np.testing.assert_allclose(got, slope("plan_opd", {}, tokens).ravel(), rtol=1e-5, atol=1e-6)


def test_kdrl_s_weight_falls_to_its_floor():
    plan, settings = METHODS["kdrl"].plan, settings_of("kdrl", {})
    found = []
    for step in (0, 40, 80, 500):
        tokens = draw(0, step=step)
        weights = plan(settings, tokens).likelihood_BxT / jnp.where(
            tokens.gap_BxT, tokens.gap_BxT, 1
        )
        found.append(float(jnp.max(weights)))
    np.testing.assert_allclose(found, [5e-3, 3e-3, 1e-3, 1e-3], rtol=1e-5)


def test_kept_scores_of_the_student_itself_pull_nowhere():
    tokens = fresh(draw(0))
    assert not np.any(slope("lightning", {}, tokens.replace(log_q_BxT=tokens.log_p_BxT)))


def test_lightning_knows_no_ratio_and_bounds_what_it_is_told():
    tokens = draw(0)
    older = tokens.replace(log_b_BxT=tokens.log_b_BxT - 3)
    ours = slope("lightning", {"advantage_clip": 0.5}, tokens)
    np.testing.assert_array_equal(ours, slope("lightning", {"advantage_clip": 0.5}, older))
    assert np.abs(ours).max() == 0.5
    plan = METHODS["lightning"].plan(settings_of("lightning", {"advantage_clip": 0.5}), tokens)
    np.testing.assert_array_equal(plan.limited_BxT, np.abs(tokens.gap_BxT) > 0.5)


@pytest.mark.parametrize("scale", ["sum1", "mean1"])
def test_scope_s_weights_at_their_ends(scale):
    rng = np.random.default_rng(0)
    log_p, log_q = (jnp.asarray(-rng.exponential(1.0, 6)) for _ in range(2))
    right = jnp.asarray([1, 1, 0, 0, 1, 0])
    n = 6 / 2
    want = 1 / n if scale == "sum1" else 1.0
    s = ScopeSettings(tau=1e9, group_scale=scale)
    np.testing.assert_allclose(scope_weights(s, log_p, log_q, right, 6), want, rtol=1e-6)
    equal = jnp.full(6, -0.7)
    s = ScopeSettings(tau=0.5, group_scale=scale)
    np.testing.assert_allclose(scope_weights(s, equal, equal, right, 6), want, rtol=1e-6)


def test_scope_does_not_clip():
    tokens = draw(0).replace(row_weight_BxT=jnp.ones((6, 12)))
    tokens = every(tokens, "right_BxT", 1.0)
    got = slope("scope", {}, tokens)
    want = -tokens.weights_BxT * jnp.exp(tokens.log_ratio_BxT)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(jnp.max(jnp.exp(tokens.log_ratio_BxT))) > 1 + HIGH


def test_a_flat_curve_is_opd_with_the_exact_divergence():
    plan = METHODS["curve"].plan(settings_of("curve", {}), draw(0))
    np.testing.assert_array_equal(plan.divergence_BxT, 1.0)
    assert plan.advantage_BxT is None


def test_cord_s_curve_falls_from_two_to_one_and_doubles_the_twenty_largest():
    width = 60
    ones = jnp.ones((1, width))
    kl = jnp.asarray(np.random.default_rng(0).random((1, width)))
    tokens = Tokens(ones, ones.astype(int), -ones, -ones, kl_BxT=kl)
    fields = {"top": 20, "top_weight": 2.0, "first": 2.0, "last": 1.0}
    got = np.asarray(METHODS["curve"].plan(settings_of("curve", fields), tokens).divergence_BxT)[0]
    largest = np.argsort(-np.asarray(kl[0]))[:20]
    line = 2 - np.arange(width) / (width - 1)
    line[largest] *= 2
    np.testing.assert_allclose(got, line, rtol=1e-6)
