"""Group advantages and the clipped surrogate against NumPy, by enumeration, and by differences."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses.surrogate import clipped_surrogate, group_advantages
from grpo.policy_gradient import GrpoSettings, surrogate_sums

VOCAB = 3
ADVANTAGES_OF = jax.jit(group_advantages, static_argnums=(1, 2, 3))
SUMS = jax.jit(surrogate_sums, static_argnums=0)


def numpy_advantages(rewards, group_size, scale, eps=1e-6):
    out = []
    for start in range(0, len(rewards), group_size):
        group = [float(r) for r in rewards[start : start + group_size]]
        mean = sum(group) / group_size
        std = (sum((r - mean) ** 2 for r in group) / group_size) ** 0.5
        for r in group:
            out.append((r - mean) / (std + eps) if scale == "std" else r - mean)
    return np.array(out)


def numpy_sums(s, new, old, advantages, weights, reference=None):
    """(surrogate, kl, count, clipped) token by token, as the equations have it."""
    surrogate = kl = clipped = 0.0
    responses = 0
    for b in range(new.shape[0]):
        a, row, row_kl, tokens = float(advantages[b]), 0.0, 0.0, 0.0
        for t in range(new.shape[1]):
            w = float(weights[b, t])
            if not w:
                continue
            ratio = np.exp(float(new[b, t]) - float(old[b, t]))
            bounded = min(max(ratio, 1 - s.clip_low), 1 + s.clip_high)
            row -= w * min(ratio * a, bounded * a)
            clipped += w * (bounded * a < ratio * a)
            if reference is not None:
                log_u = float(reference[b, t]) - float(new[b, t])
                row_kl += w * (np.exp(log_u) - 1 - log_u)
            tokens += w
        if tokens:
            scale = tokens if s.normalise == "sequence" else 1.0
            surrogate, kl, responses = surrogate + row / scale, kl + row_kl / scale, responses + 1
    count = responses if s.normalise == "sequence" else float(np.sum(weights))
    return surrogate, kl, count, clipped


def draw(seed, rows=6, width=7):
    """Log-probabilities, new, old and of a reference, advantages of both signs, weights with empty rows."""
    rng = np.random.default_rng(seed)
    new = -rng.exponential(1.0, (rows, width))
    old, reference = (new + rng.normal(0, 0.4, new.shape) for _ in range(2))
    weights = (rng.random(new.shape) < 0.7).astype(float)
    weights[rng.integers(rows)] = 0.0
    advantages = rng.normal(0, 1.5, rows)
    advantages[rng.integers(rows)] = 0.0
    return [jnp.asarray(x, jnp.float32) for x in (new, old, advantages, weights, reference)]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_advantages_equal_numpy(data):
    size = data.draw(st.sampled_from((2, 5)))
    count = 3 * size
    reward = st.floats(-2, 2, width=16) if data.draw(st.booleans()) else st.sampled_from([0.0, 1.0])
    rewards = data.draw(st.lists(reward, min_size=count, max_size=count))
    for scale in ("std", "none"):
        got = np.asarray(ADVANTAGES_OF(jnp.asarray(rewards), size, scale, 1e-3))
        np.testing.assert_allclose(
            got, numpy_advantages(rewards, size, scale, 1e-3), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(got.reshape(-1, size).sum(1), 0, atol=1e-4)


@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_have_no_advantage_to_the_last_bit(scale):
    rewards = np.repeat(np.random.default_rng(0).normal(0, 1, 50), 7).astype(np.float32)
    # The mean of equal numbers is not always that number.
    means = np.asarray(jnp.mean(jnp.asarray(rewards).reshape(-1, 7), axis=1))
    assert np.any(means != rewards[::7])
    assert not np.any(group_advantages(jnp.asarray(rewards), 7, scale))


def test_rewards_of_one_group_do_not_touch_another():
    rewards = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    both = group_advantages(rewards, 3)
    np.testing.assert_array_equal(both[:3], group_advantages(rewards[:3], 3))
    np.testing.assert_allclose(both, [2**0.5, -(0.5**0.5), -(0.5**0.5), 0, 0, 0], rtol=1e-5)


def test_advantages_refuse_an_unknown_scale_and_torn_groups():
    with pytest.raises(ValueError, match="scale='mean': choose one of"):
        group_advantages(jnp.zeros(4), 2, "mean")
    with pytest.raises(ValueError, match="5 rewards are no whole groups of group_size=2"):
        group_advantages(jnp.zeros(5), 2)


@pytest.mark.parametrize("normalise", ["sequence", "token"])
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.1, 0.5), (0.0, 0.0), (1.0, 3.0)])
def test_sums_equal_numpy(normalise, clips):
    s = GrpoSettings(clip_low=clips[0], clip_high=clips[1], normalise=normalise, kl_weight=0.3)
    some_clipped = 0.0
    for seed in range(5):
        new, old, advantages, weights, reference = draw(seed)
        if seed == 4:
            weights = weights * jnp.asarray([0.5, 1.0, 2.0, 1.0, 0.25, 1.0])[:, None]
        sums = SUMS(s, new, old, advantages, weights, reference)
        surrogate, kl, count, clipped = numpy_sums(s, new, old, advantages, weights, reference)
        np.testing.assert_allclose(sums.surrogate, surrogate, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sums.kl, kl, rtol=1e-4)
        assert float(sums.count) == pytest.approx(count)
        assert float(sums.clipped) == pytest.approx(clipped)
        assert float(sums.tokens) == pytest.approx(float(np.sum(weights)))
        mean = (surrogate + 0.3 * kl) / count
        assert float(sums.mean) == pytest.approx(mean, rel=1e-4, abs=1e-5)
        got = {name: float(x) for name, x in sums.metrics.items()}
        want = {"surrogate": surrogate / count, "kl": kl / count}
        want["clipped"] = clipped / float(np.sum(weights))
        want["idle_rows"] = np.sum(~np.any(np.asarray(weights), axis=1))
        assert got == pytest.approx(want, rel=1e-4, abs=1e-5)
        some_clipped += clipped
    assert (some_clipped > 0) == (clips != (1.0, 3.0))


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_nothing_to_train_on_is_no_loss_and_no_gradient(normalise):
    new, old, advantages, weights, reference = draw(0)
    s = GrpoSettings(normalise=normalise, kl_weight=1.0)

    def loss(new):
        return surrogate_sums(s, new, old, advantages, 0 * weights, reference).mean

    value, grad = jax.value_and_grad(loss)(new)
    assert float(value) == 0 and not np.any(grad)


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_padding_and_splitting_never_change_the_loss(normalise):
    arrays = draw(1)
    s = GrpoSettings(normalise=normalise, kl_weight=0.5)

    def sums(*arrays):
        return SUMS(s, *arrays)

    whole = sums(*arrays)
    wider = sums(*(jnp.pad(x, ((0, 2), (0, 3))[: x.ndim]) for x in arrays))
    added = jax.tree.map(
        lambda *x: sum(x), *(sums(*(x[i : i + 2] for x in arrays)) for i in (0, 2, 4))
    )
    # Rows of padding hold no response.
    assert added.idle_rows == whole.idle_rows == wider.idle_rows - 2
    for other in (wider, added):
        assert float(other.mean) == pytest.approx(float(whole.mean), rel=1e-5)
        for name, value in whole.metrics.items():
            if name == "idle_rows":
                continue
            assert float(other.metrics[name]) == pytest.approx(float(value), rel=1e-5)


def test_without_a_reference_there_is_no_kl():
    new, old, advantages, weights, _ = draw(2)
    sums = surrogate_sums(GrpoSettings(), new, old, advantages, weights)
    assert set(sums.metrics) == {"surrogate", "clipped", "idle_rows"}
    assert float(sums.mean) == float(sums.surrogate / sums.count)


def surrogate_gradient(new, old, advantages, weights, low=0.2, high=0.2):
    def total(new):
        return jnp.sum(weights * clipped_surrogate(new, old, advantages, weights, low, high)[0])

    return np.asarray(jax.grad(total)(new))


@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.0, 0.0)])
def test_at_ratio_1_the_gradient_is_the_advantage(clips):
    new, _, advantages, weights, _ = draw(3)
    got = surrogate_gradient(new, new, advantages, weights, *clips)
    np.testing.assert_allclose(got, -weights * advantages[:, None], rtol=1e-6)


def test_clipped_tokens_have_no_gradient_and_others_the_ratio_times_the_advantage():
    new, old, advantages, weights, _ = draw(4)
    _, clipped = clipped_surrogate(new, old, advantages, weights)
    assert np.any(clipped) and not np.all(clipped)
    got = surrogate_gradient(new, old, advantages, weights)
    want = np.where(clipped, 0.0, -weights * np.exp(new - old) * advantages[:, None])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert not np.any(got[np.asarray(clipped)])


def test_gradients_equal_finite_differences():
    with jax.enable_x64(True):
        new, old, advantages, weights, reference = (jnp.asarray(x, float) for x in draw(5))
        for normalise in ("sequence", "token"):
            s = GrpoSettings(normalise=normalise, kl_weight=0.7, clip_high=0.3)

            def loss(new, s=s):
                return SUMS(s, new, old, advantages, weights, reference).mean

            grad = np.asarray(jax.grad(loss)(new))
            for at in np.ndindex(new.shape):
                step = 1e-6
                up, down = loss(new.at[at].add(step)), loss(new.at[at].add(-step))
                np.testing.assert_allclose(grad[at], (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


def test_ratios_beyond_floats_are_harmless_where_clipped_or_masked():
    new, old = jnp.array([[0.0, 0.0, -300.0]]), jnp.array([[-300.0, -jnp.inf, 0.0]])
    weights = jnp.array([[1.0, 0.0, 1.0]])
    for sign, clipped_at in ((1.0, 0), (-1.0, 2)):
        advantage = jnp.array([sign])
        # A ratio that explodes against a negative advantage is not clipped: that is the method.
        at = jnp.zeros((1, 3)).at[0, clipped_at].set(weights[0, clipped_at])
        _, clipped = clipped_surrogate(new, old, advantage, at)
        assert np.flatnonzero(clipped[0]).tolist() == [clipped_at]
        assert not np.any(surrogate_gradient(new, old, advantage, at))


# A policy of two tokens: logits [V + 1, V] by the token before, the last row for the first token.
SEQUENCES = np.array(list(itertools.product(range(VOCAB), repeat=2)))


def log_probs(table, sequences_NxT):
    log_p = jax.nn.log_softmax(table)
    before = jnp.concatenate(
        [jnp.full_like(sequences_NxT[:, :1], VOCAB), sequences_NxT[:, :-1]], axis=1
    )
    return log_p[before, sequences_NxT]


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_the_expected_gradient_is_that_of_the_expected_reward(normalise):
    """All groups of three, with their probabilities. A group's mean holds the response itself, which
    takes 1 / G of the gradient; the mean over the tokens of a response divides by their number."""
    rng = np.random.default_rng(0)
    size, length = 3, 2
    with jax.enable_x64(True):
        table = jnp.asarray(rng.normal(0, 1, (VOCAB + 1, VOCAB)))
        reward = jnp.asarray(rng.integers(0, 2, len(SEQUENCES)) + rng.normal(0, 0.1, 9))
        groups = jnp.asarray(list(itertools.product(range(9), repeat=size)))

        def loss(table, group):
            new = log_probs(table, jnp.asarray(SEQUENCES)[group])
            old = jax.lax.stop_gradient(new)
            advantages = group_advantages(reward[group], size, "none")
            ones = jnp.ones_like(new)
            return surrogate_sums(
                GrpoSettings(normalise=normalise), new, old, advantages, ones
            ).mean

        def expected_reward(table):
            return jnp.exp(jnp.sum(log_probs(table, jnp.asarray(SEQUENCES)), axis=1)) @ reward

        each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(table, groups)
        probability = jnp.exp(
            jnp.sum(log_probs(table, jnp.asarray(SEQUENCES)), axis=1)[groups].sum(axis=1)
        )
        got = jnp.einsum("g,gvw->vw", probability, each)
        want = -(1 - 1 / size) / length * jax.grad(expected_reward)(table)
        # The advantages are of float32.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)
        assert np.max(np.abs(want)) > 0.01


def test_the_penalty_estimates_the_reverse_kl_and_descends_the_forward_one():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        student, reference = (jnp.asarray(rng.normal(0, 1, VOCAB)) for _ in range(2))
        p, q = jax.nn.softmax(student), jax.nn.softmax(reference)
        s = GrpoSettings(kl_weight=1.0)

        def of_token(student, token):
            new = jax.nn.log_softmax(student)[token].reshape(1, 1)
            log_q = jax.nn.log_softmax(reference)[token].reshape(1, 1)
            return surrogate_sums(s, new, new, jnp.zeros(1), jnp.ones((1, 1)), log_q).mean

        each = [jax.value_and_grad(of_token)(student, v) for v in range(VOCAB)]
        value = sum(p[v] * each[v][0] for v in range(VOCAB))
        grad = sum(p[v] * each[v][1] for v in range(VOCAB))
        np.testing.assert_allclose(value, p @ jnp.log(p / q), rtol=1e-10)
        np.testing.assert_allclose(grad, p - q, rtol=1e-10)  # of KL(q, p)
        reverse = p * (jnp.log(p / q) - value)
        assert not np.allclose(grad, reverse, rtol=1e-2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip_low", 0.4), ("clip_high", 0.4), ("normalise", "token"), ("kl_weight", 0.5)],
)
def test_every_field_of_the_loss_changes_it(field, value):
    new, old, advantages, weights, reference = draw(6)
    base = GrpoSettings(kl_weight=0.1)
    values = [
        float(SUMS(s, new, old, advantages, weights, reference).mean)
        for s in (base, dataclasses.replace(base, **{field: value}))
    ]
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"advantage": "rank"}, r"grpo\.advantage='rank': choose one of"),
        ({"normalise": "batch"}, r"grpo\.normalise='batch': choose one of"),
        ({"clip_low": 1.2}, r"grpo\.clip_low=1\.2 must lie in \[0, 1\]"),
        ({"clip_low": float("nan")}, r"grpo\.clip_low=nan"),
        ({"clip_high": -0.1}, r"grpo\.clip_high=-0\.1 must be at least 0"),
        ({"kl_weight": -1.0}, r"grpo\.kl_weight=-1\.0 must be at least 0"),
        ({"student_temperature": 0.6}, r"grpo\.student_temperature=0\.6.*Set it to 1\.0"),
        ({"max_total": 0}, r"grpo\.max_total=0 must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GrpoSettings(**fields)
