"""The whole loss against NumPy and finite differences; padding, packing, parts; idle groups.

Models are tables of logits here, which compile quickly; test_models.py has transformers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill.train.packing import pack
from distill.train.state import create_state
from family import METHODS, Tokens, make_planned_step
from family.train import rewarded

from .batches import ENDS, STUDENT, VOCAB, look_up, make, objective, reading, scores
from .drawn import GROUP
from .reference import numpy_loss, numpy_plan, numpy_scope_weights

STEP = 3
# These are tried in every run, the others at night.
QUICK = ("kdrl", "scope", "curve", "rlad")
SOME = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]


@pytest.fixture
def tables(monkeypatch):
    """Of student, teacher, and an older student."""
    return look_up(monkeypatch)


def normalise(name):
    """Both ways of taking a mean come up, for one method or another."""
    return ("token", "sequence")[list(METHODS).index(name) % 2]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(batch, student, teacher, older):
    """What a plan reads, from the logits of all tokens at once; log p and log q of all [B, T, V]."""
    t = batch.trajectories
    before, targets = (np.asarray(x) for x in (t.tokens_BxT[:, :-1], t.tokens_BxT[:, 1:]))
    p, q, b = (log_softmax(np.asarray(x, np.float64)[before][..., :VOCAB]) for x in (student, teacher, older))  # fmt: skip
    weights = np.asarray(t.likelihood_weights_BxT[:, 1:])

    def chosen(x):
        return np.take_along_axis(x, targets[..., None], axis=-1)[..., 0]

    def of_rows(x):
        return None if x is None else np.broadcast_to(np.asarray(x)[:, None], weights.shape)

    known = {
        "log_p_BxT": chosen(p),
        "log_b_BxT": chosen(b),
        "log_q_BxT": chosen(q),
        "log_ref_BxT": None if batch.log_ref_BxT is None else np.asarray(batch.log_ref_BxT)[:, 1:],
        "student_entropy_BxT": -np.sum(np.exp(p) * p, -1),
        "teacher_entropy_BxT": -np.sum(np.exp(q) * q, -1),
        "kl_BxT": np.sum(np.exp(p) * (p - q), -1),
        "advantage_BxT": of_rows(batch.advantage_B),
        "right_BxT": of_rows(batch.rewards_B),
        "group_right_BxT": of_rows(batch.group_right_B),
        "row_weight_BxT": of_rows(batch.row_weight_B),
        "ends_BxT": np.isin(targets, ENDS).astype(float),
    }
    known = {k: None if x is None else np.where(weights != 0, x, 0.0) for k, x in known.items()}
    return Tokens(weights, np.asarray(t.segment_ids_BxT[:, 1:]), **known, step=STEP), p, q


def exact(signal, p, q):
    """D of every token."""
    if signal is None:
        return None
    if signal.support == "full":
        return np.sum(np.exp(p) * (p - q), -1)
    top = np.argsort(-q, axis=-1, kind="stable")[..., : signal.top_k]  # and one bucket
    out = 0.0
    kept = [np.take_along_axis(np.exp(x), top, axis=-1) for x in (q, p)]
    rest = [1 - x.sum(-1) for x in kept]
    out = np.sum(kept[0] * np.log(kept[0] / kept[1]), -1)
    return out + rest[0] * np.log(rest[0] / rest[1])


def complete(name, batch, ours, tables):
    """The batch as the train step hands it to the loss."""
    batch = rewarded(ours, reading(name, batch), GROUP)
    if METHODS[name].row_weights is None:
        return batch
    seen, *_ = by_hand(batch, *tables)
    counts = np.maximum(np.sum(seen.weights_BxT != 0, axis=1), 1)
    means = [np.sum(x, axis=1) / counts for x in (seen.log_p_BxT, seen.log_q_BxT)]
    weights = numpy_scope_weights(ours.plan, *means, np.asarray(batch.rewards_B), GROUP)
    return batch.replace(row_weight_B=jnp.asarray(weights, jnp.float32))


@pytest.mark.parametrize("name", METHODS)
def test_value_and_gradient_equal_numpy_and_its_differences(name, tables):
    """The plan's detached part held fixed; ratios are clipped, and responses of any length."""
    student, teacher, older = tables
    ours = objective(name, normalise=normalise(name), clip_high=0.05, clip_low=0.05)
    batch = complete(name, make(0), ours, tables)

    def total(p):
        sums = ours(p, older, teacher, jnp.asarray(STEP), batch)
        return sums.total, sums

    gradient, sums = jax.jit(jax.grad(total, has_aux=True))(student)
    signal = ours.method.signal(ours.plan)
    tokens, p, q = by_hand(batch, student, teacher, older)
    plan = numpy_plan(name, ours.plan, tokens)
    clips = name != "scope"
    value, count = numpy_loss(plan, tokens, ours.surrogate, clips, exact(signal, p, q))
    assert float(sums.count) == count and int(sums.idle_rows) == 1
    assert float(sums.total) == pytest.approx(value, rel=1e-5, abs=1e-5)
    assert float(sums.mean) == pytest.approx(value / count, rel=1e-5, abs=1e-6)
    metrics = {k: float(x) for k, x in sums.metrics.items()}
    parts = sum(metrics.get(part, 0.0) for part in ("surrogate", "likelihood", "divergence"))
    assert parts == pytest.approx(float(sums.mean), rel=1e-5, abs=1e-6)
    if METHODS[name].taught:
        gap = np.sum(tokens.log_q_BxT - tokens.log_p_BxT) / np.sum(tokens.weights_BxT)
        assert metrics["gap"] == pytest.approx(gap, rel=1e-5)

    def loss(table):
        live, p, q = by_hand(batch, table, teacher, older)
        ratio = numpy_plan(name, ours.plan, live)["rho"]
        if name == "lightning":  # rho is 1, with the gradient of log p
            ratio = live.log_p_BxT - tokens.log_p_BxT
        held = {**plan, "rho": ratio}
        return numpy_loss(held, live, ours.surrogate, clips, exact(signal, p, q))[0]

    rng, start, step = np.random.default_rng(0), np.asarray(student, np.float64), 1e-5
    for _ in range(3):
        way = rng.normal(size=start.shape)
        difference = (loss(start + step * way) - loss(start - step * way)) / (2 * step)
        slope = float(np.sum(np.asarray(gradient) * way))
        assert slope == pytest.approx(difference, rel=1e-4, abs=1e-5)
        assert abs(slope) > 1e-3


def gradient_of(ours, batch, tables):
    def loss(p):
        sums = ours(p, None, tables[1], jnp.asarray(STEP), batch)
        return sums.mean, sums

    return jax.jit(jax.grad(loss, has_aux=True))(tables[0])


def assert_equal_gradients(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("name", SOME)
def test_padding_and_packing_change_no_gradient(name, tables):
    ours = objective(name, normalise=normalise(name))
    batch = complete(name, make(2), ours, tables)
    alone, sums = gradient_of(ours, batch, tables)
    wider = jax.tree.map(lambda x: jnp.pad(x, ((0, 2), (0, 3))[: x.ndim]), batch)
    padded, more = gradient_of(ours, wider, tables)
    assert_equal_gradients(alone, padded)
    assert float(more.mean) == pytest.approx(float(sums.mean), rel=1e-5, abs=1e-6)
    if METHODS[name].rewarded or METHODS[name].reference:
        return  # what is known of a row is one number: such batches are not packed
    t = pack(batch.trajectories, 18)
    assert t.tokens_BxT.shape[0] < batch.trajectories.tokens_BxT.shape[0]
    together, packed = gradient_of(ours, batch.replace(trajectories=t), tables)
    assert_equal_gradients(alone, together)
    assert float(packed.mean) == pytest.approx(float(sums.mean), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", SOME)
def test_parts_of_a_batch_give_the_update_of_the_whole(name, tables):
    batch = reading(name, make(3, rows=4 * GROUP))
    optimizer = optax.sgd(0.1, momentum=0.9)  # the momentum is the gradient
    ours = objective(name, normalise="sequence")

    def run(parts):
        step = make_planned_step(ours, optimizer, GROUP, parts)
        return jax.jit(step)(create_state(tables[0], optimizer), tables[1], batch)

    (whole, metrics), (several, found) = run(1), run(4)
    assert metrics.keys() == found.keys()
    for key in metrics:
        np.testing.assert_allclose(found[key], metrics[key], rtol=1e-5, atol=1e-6, err_msg=key)
    assert_equal_gradients(whole.opt_state, several.opt_state)
    assert metrics["grad_norm"] > 1e-3 and not metrics["idle"]


def test_the_first_step_on_kept_scores_is_opd_s_to_the_last_bit(tables):
    """Kept while the weights are those that wrote the text, and read by the same program."""
    batch = reading("lightning", make(1))
    opd = objective("plan_opd")
    seen = opd.tokens(*opd.readouts(*tables[:2], batch), None, jnp.asarray(0), batch)
    kept = jnp.pad(seen.log_q_BxT, ((0, 0), (1, 0)))
    trajectories = batch.trajectories.replace(teacher_scores=scores(batch.trajectories, kept))
    cached = batch.replace(trajectories=trajectories)
    without = [tables[0], None]  # the teacher is not run
    first = gradient_of(opd, cached, without)[0]
    for fields in ({}, {"advantage_clip": 0.0}):
        np.testing.assert_array_equal(
            first, gradient_of(objective("lightning", fields), cached, without)[0]
        )
    np.testing.assert_allclose(first, gradient_of(opd, batch, tables)[0], rtol=1e-5, atol=1e-7)
    assert np.any(first)


def test_a_plan_without_its_teacher_is_refused(tables):
    with pytest.raises(ValueError, match="reads what a teacher says"):
        objective("plan_opd")(tables[0], None, None, STEP, reading("plan_opd", make(0)))


def test_groups_are_compared_whole(tables):
    ours = objective("hdpo")
    batch = rewarded(ours, make(0), GROUP)
    right = np.asarray(batch.rewards_B).reshape(-1, GROUP)
    np.testing.assert_array_equal(batch.group_right_B, right.max(1).repeat(GROUP))
    want = (right - right.mean(1, keepdims=True)) / (right.std(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(batch.advantage_B, want.ravel(), rtol=1e-5)
    assert rewarded(ours, reading("plan_opd", make(0)), GROUP).advantage_B is None


@pytest.mark.parametrize(("name", "right"), [("rlad", 0.0), ("rlsd", 1.0)])
def test_groups_of_equal_rewards_are_idle(name, right, tables):
    batch = reading(name, make(0))
    batch = batch.replace(rewards_B=jnp.full_like(batch.rewards_B, right))
    optimizer = optax.sgd(0.1)
    step = make_planned_step(objective(name, {}), optimizer, GROUP)
    new, metrics = jax.jit(step)(create_state(tables[0], optimizer), tables[1], batch)
    assert metrics["idle"] == 1 and metrics["skipped"] == 0
    np.testing.assert_array_equal(new.params, tables[0])


def test_a_teacher_that_follows_is_refreshed_every_few_updates(tables):
    batch = reading("rlsd", make(0))
    optimizer, student = optax.sgd(0.1), tables[0]
    ours = objective("rlsd", None, STUDENT, STUDENT)
    step = jax.jit(make_planned_step(ours, optimizer, GROUP, teacher_sync=2))
    one, _ = step(create_state(student, optimizer, {"teacher_params": student}), None, batch)
    np.testing.assert_array_equal(one.method_state["teacher_params"], student)
    two, _ = step(one, None, batch)
    np.testing.assert_array_equal(two.method_state["teacher_params"], two.params)
    assert np.any(two.params != student)
