"""What each plan descends: all tokens of a small vocabulary, with their probabilities, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses.divergence import divergence, forward_kl, reverse_kl, top_k_divergence
from distill.losses.estimators import k2, k3
from family import METHODS, Tokens
from family.loss import token_loss

from .drawn import settings_of

VOCAB = 5
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def draw(seed: int, near: float = 1.0) -> list[jax.Array]:
    """Logits of student, teacher and a third model."""
    rng = np.random.default_rng(seed)
    student = rng.normal(0, 1, VOCAB)
    return [jnp.asarray(x) for x in (student, *(student + near * rng.normal(0, 1, (2, VOCAB))))]


def expected_gradient(name: str, fields: dict, logits: list[jax.Array], **rows: float) -> jax.Array:
    """E[grad loss] in the student's logits, the token drawn from the student; and w times grad D."""
    method, settings = METHODS[name], settings_of(name, fields)
    student, teacher, third = (jax.nn.log_softmax(x) for x in logits)
    kl = reverse_kl(*logits[1::-1])
    entropies = [-jnp.sum(jnp.exp(x) * x) for x in (student, teacher)]

    def all_of(x: float | jax.Array) -> jax.Array:
        return jnp.full((VOCAB, 1), x, float)

    def loss(at: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(at)[:, None]
        tokens = Tokens(
            weights_BxT=all_of(1),
            segment_ids_BxT=jnp.ones((VOCAB, 1), int),
            log_p_BxT=log_p,
            log_b_BxT=jax.lax.stop_gradient(log_p),
            log_q_BxT=teacher[:, None],
            log_ref_BxT=third[:, None],
            student_entropy_BxT=all_of(entropies[0]),
            teacher_entropy_BxT=all_of(entropies[1]),
            kl_BxT=all_of(kl),
            advantage_BxT=all_of(rows.get("advantage", 0.0)),
            right_BxT=all_of(rows.get("right", 0.0)),
            group_right_BxT=all_of(rows.get("group_right", 0.0)),
            row_weight_BxT=all_of(rows.get("row_weight", 1.0)),
            ends_BxT=all_of(0),
            step=jnp.asarray(0),
        )
        plan = method.plan(settings, tokens)
        each_BxT, _ = token_loss(plan, tokens, 0.2, 0.2)
        if plan.divergence_BxT is not None:
            signal = method.signal(settings)
            exact = _of_signal(signal, logits[1], at)
            each_BxT = each_BxT + jax.lax.stop_gradient(plan.divergence_BxT) * exact
        return jax.lax.stop_gradient(jnp.exp(student)) @ each_BxT[:, 0]

    return jax.grad(loss)(logits[0])


def _of_signal(signal, teacher, student):
    if signal.support == "full":
        return divergence(signal.divergence, teacher, student)
    return top_k_divergence(signal.divergence, teacher, student, signal.top_k, signal.top_k_of)


def grad(fn, student):
    return jax.grad(fn)(student)


def density_power(power):
    """Basu and others' divergence of student and teacher, times `power`."""

    def of(teacher, student):
        p, q = jax.nn.softmax(student), jax.nn.softmax(teacher)
        each = p ** (1 + power) / (1 + power) - p * q**power
        return jnp.sum(each)

    return of


def beyond(extrapolation):
    def of(teacher, student, third):
        q, ref = jax.nn.log_softmax(teacher), jax.nn.log_softmax(third)
        return reverse_kl(q + (extrapolation - 1) * (q - ref), student)

    return of


REVERSE = lambda q, p, _: reverse_kl(q, p)  # noqa: E731
FORWARD = lambda q, p, _: forward_kl(q, p)  # noqa: E731
# Method, settings, what is known of the response, the divergence, and its factor.
NAMED = [
    ("plan_opd", {}, {}, REVERSE, 1.0),
    ("plan_opd", {"pull": "forward_kl"}, {}, FORWARD, 1.0),
    ("kdrl", {"beta": 0.3}, {}, REVERSE, 0.3),
    ("kdrl", {"beta": 0.3, "form": "advantage"}, {}, REVERSE, 0.3),
    ("kdrl", {"beta": 0.3, "pull": "forward_kl"}, {}, FORWARD, 0.3),
    ("kdrl", {"beta": 0.3, "gate": "response"}, {"right": 0.0}, REVERSE, 0.3),
    ("kdrl", {"beta": 0.3, "gate": "response"}, {"right": 1.0}, REVERSE, 0.0),
    ("kdrl", {"beta": 0.3, "gate": "group"}, {"group_right": 1.0}, REVERSE, 0.0),
    # A reward that is the same for every token pulls nowhere.
    ("plan_grpo", {}, {"advantage": 0.7}, REVERSE, 0.0),
    ("kdrl", {"beta": 0.3}, {"advantage": -1.3}, REVERSE, 0.3),
    ("opd_on_wrong", {}, {"advantage": 0.7, "right": 0.0}, REVERSE, 1.0),
    ("opd_on_wrong", {}, {"advantage": 0.7, "right": 1.0}, REVERSE, 0.0),
    ("hdpo", {"beta": 0.4}, {"advantage": 0.0, "group_right": 0.0}, REVERSE, 0.4),
    ("hdpo", {"beta": 0.4}, {"advantage": -1.0, "group_right": 1.0}, REVERSE, 0.0),
    ("switch", {"after": 1}, {"advantage": 1.0}, REVERSE, 1.0),
    ("switch", {"after": 0}, {"advantage": 1.0}, REVERSE, 0.0),
    ("scope", {}, {"right": 0.0, "row_weight": 0.3}, REVERSE, 0.3),
    ("scope", {}, {"right": 1.0, "row_weight": 0.3}, REVERSE, 0.0),
    ("lightning", {}, {}, REVERSE, 1.0),
    ("vopd", {}, {}, REVERSE, 1.0),
    ("jsd_opd", {"beta": 0.3}, {}, lambda q, p, _: divergence("jsd", q, p, 0.3), 1.0),
    ("power_opd", {"power": 0.4}, {}, lambda q, p, _: density_power(0.4)(q, p), 1.0),
    ("g_opd", {"extrapolation": 1.8}, {}, beyond(1.8), 1.0),
    ("tip", {"share": 1.0}, {}, REVERSE, 1.0),
    ("iw_opd", {"bonus": 0.0}, {}, REVERSE, 1.0),
    ("curve", {"first": 1.5}, {}, REVERSE, 1.5),
    (
        "eopd",
        {"threshold": 0.0, "weight": 0.6, "top_k": VOCAB},
        {},
        lambda q, p, _: reverse_kl(q, p) + 0.6 * forward_kl(q, p),
        1.0,
    ),
    ("eopd", {"threshold": 3.0, "weight": 0.6}, {}, REVERSE, 1.0),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "fields", "rows", "named", "factor"), NAMED)
def test_the_expected_gradient_is_the_one_named(name, fields, rows, named, factor, seed):
    logits = draw(seed)
    got = expected_gradient(name, fields, logits, **rows)
    want = factor * grad(lambda p: named(logits[1], p, logits[2]), logits[0])
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bounded_pull_is_tanh_and_for_small_ones_a_quarter_of_the_reverse_kl(seed):
    logits = draw(seed)
    d = jax.nn.log_softmax(logits[1]) - jax.nn.log_softmax(logits[0])
    got = expected_gradient("sdar", {"weight": 1.0, "sharpness": 5.0}, logits)
    np.testing.assert_allclose(got, advantage_gradient(jnp.tanh(2.5 * d) / 2, logits[0]), rtol=1e-9)
    small = expected_gradient("sdar", {"weight": 1.0, "sharpness": 1e-4}, logits) / (1e-4 / 4)
    np.testing.assert_allclose(
        small, grad(lambda p: reverse_kl(logits[1], p), logits[0]), rtol=1e-5
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_powers_of_probabilities_tend_to_the_reverse_kl(seed):
    logits = draw(seed)
    got = expected_gradient("power_opd", {"power": 1e-5}, logits) / 1e-5
    want = grad(lambda p: reverse_kl(logits[1], p), logits[0])
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def advantage_gradient(advantages_V: jax.Array, student: jax.Array) -> jax.Array:
    """Of the loss -E[A log p], A held fixed."""
    p = jax.lax.stop_gradient(jax.nn.softmax(student))
    return grad(lambda x: -(p * advantages_V) @ jax.nn.log_softmax(x), student)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_refused_has_no_such_gradient(seed):
    """Section by section of `family.pull.REFUSED`."""
    student, teacher, _ = draw(seed)
    d = jax.nn.log_softmax(teacher) - jax.nn.log_softmax(student)
    reverse, forward = (
        grad(lambda x, f=f: f(teacher, x), student) for f in (reverse_kl, forward_kl)
    )
    p = jax.nn.softmax(student)
    # k1 as a loss.
    of_k1 = grad(lambda x: p @ jax.nn.log_softmax(x), student)
    np.testing.assert_allclose(of_k1, 0, atol=1e-12)
    # -k3 as an advantage, and under its other name.
    np.testing.assert_allclose(
        advantage_gradient(-k3(d), student), reverse - forward, rtol=1e-9, atol=1e-12
    )
    # A divergence of the whole position as an advantage.
    whole = jnp.full(VOCAB, reverse_kl(teacher, student))
    np.testing.assert_allclose(advantage_gradient(-whole, student), 0, atol=1e-12)
    # -k2 as an advantage: a teacher and its mirror image around the student pull alike.
    mirrored = advantage_gradient(-k2(-d), student)
    np.testing.assert_array_equal(advantage_gradient(-k2(d), student), mirrored)


def test_k3_and_k2_as_advantages_hardly_point_along_the_reverse_kl():
    """2000 pairs close to each other; the catalogue of methods found .06 and .21."""
    rng = np.random.default_rng(0)
    student = jnp.asarray(rng.normal(0, 1, (2000, VOCAB)))
    teacher = student + 0.1 * jnp.asarray(rng.normal(0, 1, (2000, VOCAB)))

    def cosine(p: jax.Array, q: jax.Array, k) -> jax.Array:
        d = jax.nn.log_softmax(q) - jax.nn.log_softmax(p)
        a, b = advantage_gradient(-k(d), p), grad(lambda x: reverse_kl(q, x), p)
        return a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)

    for k in (k2, k3):
        found = jax.vmap(lambda p, q, k=k: cosine(p, q, k))(student, teacher)
        assert abs(float(jnp.mean(found))) < 0.35 and float(jnp.std(found)) > 0.2
    # d itself points along it, exactly.
    right = jax.vmap(lambda p, q: cosine(p, q, lambda d: -d))(student, teacher)
    np.testing.assert_allclose(right, 1, rtol=1e-9)


@pytest.mark.parametrize("power", [1e-2, 1e-3])
def test_k3_as_an_advantage_vanishes_to_first_order_and_z_scores_not_at_all(power):
    student, teacher, _ = draw(0, near=power)
    d = jax.nn.log_softmax(teacher) - jax.nn.log_softmax(student)
    right = jnp.linalg.norm(advantage_gradient(d, student))
    of_k3 = jnp.linalg.norm(advantage_gradient(-k3(d), student))
    z = (d - jnp.mean(d)) / jnp.std(d)
    of_z = jnp.linalg.norm(advantage_gradient(z, student))
    assert float(of_k3) < 3 * power * float(right) and float(right) < 3 * power
    assert float(of_z) > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_form_and_the_advantage_are_the_same_token_by_token(seed):
    logits = draw(seed)
    forms = [
        expected_gradient("kdrl", {"beta": 0.3, "form": form}, logits, advantage=0.5)
        for form in ("loss", "advantage")
    ]
    np.testing.assert_allclose(forms[0], forms[1], rtol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rlad_at_the_first_step(sign):
    """Where log p - log q lies within the bound its gradient is that of rho, and A^ rho weighs it; where
    the ratio is clipped there is none."""
    logits = draw(3)
    d = jax.nn.log_softmax(logits[1]) - jax.nn.log_softmax(logits[0])
    got = expected_gradient("rlad", {}, logits, advantage=sign)
    rho = np.exp(0.5 * np.clip(-d, -1, 1))
    slope = np.where(np.abs(d) < 1, 1.0, 0.5)
    # Clips of .2: no gradient above 1.2 where A^ > 0, nor below .8 where A^ < 0.
    live = (rho <= 1.2) if sign > 0 else (rho >= 0.8)
    want = advantage_gradient(jnp.asarray(sign * rho * slope * live), logits[0])
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    assert not np.all(live) or sign > 0
