"""ATESD's loss: clips against NumPy and finite differences, rows against a forward of their own."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from atesd.loss import (
    CLIPS,
    LossSettings,
    RowScores,
    clipped_divergence,
    exposed_scores,
    group_means,
    groups_by_difficulty,
)
from distill.losses import chunked
from distill.losses.divergence import DIVERGENCES, forward_kl

from ..distill.losses import test_chunked
from ..distill.losses.compiled_arrays import largest_array
from ..motab import tiny
from . import tiny_exposed

CASES = list(itertools.product(DIVERGENCES, CLIPS, (0.7, 1.0, 1.3)))


def settings_of(divergence, clip, temperature):
    return LossSettings(divergence, 0.3, temperature, clip, clip_at=0.05)


def random_logits(seed, shape=(6, 9)):
    rng = np.random.default_rng(seed)
    return 1.5 * rng.standard_normal(shape), 1.5 * rng.standard_normal(shape)


@pytest.mark.parametrize(("divergence", "clip", "temperature"), CASES)
def test_divergence_and_clip_are_the_formulas(divergence, clip, temperature):
    settings = settings_of(divergence, clip, temperature)
    teacher, student = random_logits(0)
    # Two positions at which next to nothing exceeds the cap.
    student[:2] = teacher[:2] + 0.1 * student[:2]
    expected, expected_capped = tiny_exposed.clipped(settings, teacher, student)
    got, capped = clipped_divergence(settings, jnp.asarray(teacher), jnp.asarray(student))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(capped, expected_capped)
    assert capped.any() == (clip != "none") and not capped.all()


@pytest.mark.parametrize(("divergence", "clip", "temperature"), CASES)
def test_the_gradient_is_that_of_finite_differences(divergence, clip, temperature):
    settings = settings_of(divergence, clip, temperature)
    teacher, student = random_logits(1)
    student[:3] = teacher[:3] + 0.1 * student[:3]
    t = temperature
    each = tiny_exposed.summands(divergence, teacher / t, student / t, 0.3)
    measured = {"none": np.inf, "summand": each, "token": each.sum(-1)}[clip]
    assert np.abs(measured - settings.clip_at).min() > 1e-5  # away from the kink

    with jax.enable_x64(True):
        got = jax.grad(lambda x: clipped_divergence(settings, jnp.asarray(teacher), x)[0].sum())(
            jnp.asarray(student)
        )
    h = 1e-6
    for place in np.ndindex(student.shape):
        change = np.zeros_like(student)
        change[place] = h
        above, below = (
            tiny_exposed.clipped(settings, teacher, student + sign * change)[0].sum()
            for sign in (1, -1)
        )
        assert got[place] == pytest.approx((above - below) / (2 * h), abs=1e-8, rel=1e-6)


def test_a_capped_entry_is_pushed_down_through_the_normaliser():
    """Its own pull is gone; what is left of its gradient is p_j times the others' mass under q."""
    teacher, student = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.log(jnp.array([0.1, 0.3, 0.6]))

    def loss(student, clip):
        return clipped_divergence(LossSettings(clip=clip), teacher, student)[0]

    unclipped = jax.grad(loss)(student, "none")
    np.testing.assert_allclose(unclipped, np.exp(student) - np.exp(teacher), atol=1e-6)
    capped = jax.grad(loss)(student, "summand")
    assert unclipped[0] == pytest.approx(-0.6) and capped[0] == pytest.approx(0.1 * 0.3)
    # The clipped loss may be negative: .05 and what the other two subtract.
    expected = 0.05 + 0.2 * np.log(2 / 3) + 0.1 * np.log(1 / 6)
    assert expected < 0 and loss(student, "summand") == pytest.approx(expected, abs=1e-6)
    # A capped token has no gradient at all.
    assert loss(student, "token") == pytest.approx(0.05)
    np.testing.assert_array_equal(jax.grad(loss)(student, "token"), 0.0)


@pytest.mark.parametrize("clip", ["summand", "token"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_cap_out_of_reach_is_none(divergence, clip):
    teacher, student = map(jnp.asarray, random_logits(2))
    high = LossSettings(divergence, clip=clip, clip_at=1e6)
    none = LossSettings(divergence)
    got, capped = clipped_divergence(high, teacher, student)
    np.testing.assert_array_equal(got, clipped_divergence(none, teacher, student)[0])
    assert not capped.any()


@given(
    difficulty=st.sampled_from([1, 5, 8]).flatmap(
        lambda n: st.lists(st.integers(-3, 3), min_size=n, max_size=n)
    ),
    groups=st.integers(1, 9),
)
def test_groups_are_the_sorted_batch_in_even_parts(difficulty, groups):
    got = np.asarray(groups_by_difficulty(jnp.asarray(difficulty, jnp.float32), groups))
    assert got.dtype == np.int32 and got.min() >= 0 and got.max() < groups
    sizes = np.bincount(got, minlength=groups)
    assert sizes.max() - sizes.min() <= 1
    # From the easiest to the hardest; of equals, the first one comes first.
    order = sorted(range(len(difficulty)), key=lambda b: (difficulty[b], b))
    assert list(got[order]) == sorted(got)
    np.testing.assert_array_equal(
        got, groups_by_difficulty(jnp.asarray(difficulty, jnp.int32), groups)
    )


def test_terciles():
    assert groups_by_difficulty(jnp.arange(6.0)[::-1], 3).tolist() == [2, 2, 1, 1, 0, 0]


STUDENT_PARAMS = tiny.params(tiny_exposed.STUDENT, 1)
TEACHER_PARAMS = tiny.params(tiny_exposed.TEACHER, 2)


@pytest.mark.parametrize(
    ("settings", "exposures"),
    [
        (LossSettings(), ("0.5",)),
        (LossSettings("reverse_kl", 0.5, 1.3, "summand", 0.05), ("0.9", "0.5", "0.1")),
        (
            LossSettings("jsd", 0.3, 0.8, "token", 0.1, difficulty="reference_length"),
            ("1", "0.5", "0"),
        ),
    ],
)
def test_scores_are_those_of_every_row_alone(settings, exposures):
    rows = tiny_exposed.rows(3)
    batch = tiny_exposed.pack(rows)
    models_ = (STUDENT_PARAMS, tiny_exposed.STUDENT, TEACHER_PARAMS, tiny_exposed.TEACHER)
    got = jax.jit(
        lambda *inputs: exposed_scores(
            inputs[0], models_[1], inputs[1], models_[3], *inputs[2:], settings,
            tiny_exposed.RESPONSE,
        ),
        compiler_options=tiny_exposed.QUICK,
    )(models_[0], models_[2], batch.trajectories, batch.references,
      jnp.asarray([float(a) for a in exposures]))  # fmt: skip

    confidences = [tiny_exposed.confidence(*models_[:2], row) for row in rows]
    np.testing.assert_allclose(got.confidence_B, confidences, rtol=1e-5)
    lengths = [len(row.reference.reasoning) for row in rows]
    difficulty = lengths if settings.difficulty == "reference_length" else np.negative(confidences)
    order = sorted(range(len(rows)), key=lambda b: (difficulty[b], b))
    group = np.empty(len(rows), int)
    group[order] = [rank * len(exposures) // len(rows) for rank in range(len(rows))]
    np.testing.assert_array_equal(got.group_B, group)
    np.testing.assert_allclose(got.exposure_B, [float(exposures[g]) for g in group], rtol=1e-6)
    np.testing.assert_array_equal(got.tokens_B, [len(row.response) for row in rows])
    for b, row in enumerate(rows):
        expected = tiny_exposed.row_scores(*models_, row, exposures[group[b]], settings)
        for name, value in expected.items():
            np.testing.assert_allclose(
                getattr(got, f"{name}_B")[b], value, rtol=2e-5, atol=1e-6, err_msg=f"{name} {b}"
            )
    assert (settings.clip == "none") == (not np.any(np.asarray(got.clipped_B)))
    assert not any(np.asarray(x)[tiny_exposed.RESPONSES.index(0)] for x in (
        got.loss_B, got.mismatch_B, got.clipped_B, got.disagreement_B, got.confidence_B
    ))  # fmt: skip


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_clipped_losses_in_blocks_equal_all_logits_at_once(divergence, clip, monkeypatch):
    settings = settings_of(divergence, clip, 1.3)

    def function(p, q, _):
        value, capped = clipped_divergence(settings, q[..., :13], p)
        return value, {"capped": capped, "mismatch": forward_kl(q[..., :13], p)}

    arrays = test_chunked.draw(0)
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", 3 * 16 * 2)
    with jax.default_matmul_precision("highest"):
        want = test_chunked.dense(function, arrays)
        value, (hidden, head, *_) = test_chunked.pieces(function, arrays)
    assert np.any(want[0][1]["capped"]) == (clip != "none")
    test_chunked.assert_close((value, (hidden, head)), want, 1e-5)


def step_inputs():
    """A loss, and what it is called with."""
    batch = tiny_exposed.batch(3)

    def loss(params, teacher, batch, exposure_G):
        scores = exposed_scores(
            params, tiny_exposed.STUDENT, teacher, tiny_exposed.TEACHER, batch.trajectories,
            batch.references, exposure_G, LossSettings("jsd", 0.3), tiny_exposed.RESPONSE,
        )  # fmt: skip
        return scores.loss, scores

    return loss, (STUDENT_PARAMS, TEACHER_PARAMS, batch, jnp.asarray([0.9, 0.5, 0.1]))


def test_blocks_change_neither_scores_nor_gradient(monkeypatch):
    loss, inputs = step_inputs()
    results = []
    with jax.default_matmul_precision("highest"):
        for elements in (2**20, 1):
            monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", elements)
            fn = jax.jit(
                lambda *x: jax.value_and_grad(loss, has_aux=True)(*x),
                compiler_options=tiny_exposed.QUICK,
            )
            results.append(fn(*inputs))
    test_chunked.assert_close(*results, 1e-5)
    (value, scores), _ = results[0]
    there = np.asarray(scores.tokens_B) > 0
    assert float(value) == pytest.approx(np.mean(np.asarray(scores.loss_B)[there]), rel=1e-5)


def test_no_array_has_the_size_of_tokens_times_the_vocabulary(monkeypatch):
    """A vocabulary larger than all else; forward, backward, and the difficulty's own pass."""
    vocab = 509
    student, teacher = (
        c.replace(vocab_size=n)
        for c, n in ((tiny_exposed.STUDENT, vocab), (tiny_exposed.TEACHER, vocab + 3))
    )
    batch = tiny_exposed.batch(3)
    rows, length = batch.trajectories.tokens_BxT[:, 1:].shape
    limit = rows * length * vocab
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", limit // 3)

    def loss(params, teacher_params, batch, exposure_G):
        return exposed_scores(
            params, student, teacher_params, teacher, batch.trajectories, batch.references,
            exposure_G, LossSettings(), tiny_exposed.RESPONSE,
        ).loss  # fmt: skip

    program = jax.jit(jax.value_and_grad(loss)).lower(
        models.abstract(student), models.abstract(teacher), batch, jnp.zeros(3)
    )
    assert largest_array(program.compile()) < limit


def test_group_means_leave_out_empty_rows_and_are_nan_for_empty_groups():
    zeros = jnp.zeros(5)
    scores = RowScores(
        jnp.zeros(()), zeros, zeros, zeros, zeros, zeros,
        tokens_B=jnp.array([3, 0, 1, 0, 2.0]),
        group_B=jnp.array([0, 0, 2, 3, 0]),
        exposure_B=zeros,
    )  # fmt: skip
    values = jnp.array([1.0, jnp.nan, 5.0, 7.0, 2.0])
    np.testing.assert_array_equal(group_means(values, scores, 5), [1.5, np.nan, 5, np.nan, np.nan])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("divergence", "mse", r"loss\.divergence='mse': choose one of"),
        ("clip", "row", r"loss\.clip='row': choose one of"),
        ("difficulty", "length", r"loss\.difficulty='length': choose one of"),
        ("jsd_beta", 1.5, r"loss\.jsd_beta=1\.5 must lie in \[0, 1\]"),
        ("temperature", 0.0, r"loss\.temperature=0\.0 must be above 0"),
        ("temperature", float("nan"), r"loss\.temperature=nan must be above 0"),
        ("clip_at", 0.0, r"loss\.clip_at=0\.0 must be above 0"),
    ],
)
def test_settings_are_checked(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LossSettings(), **{field: value})
