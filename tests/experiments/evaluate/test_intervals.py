"""Statistics against enumeration and scipy."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.evaluate.intervals import (
    average_at_n,
    bootstrap,
    crossed_bootstrap,
    majority_at_n,
    mean_of_sets,
    paired_difference,
    pass_at_k,
)

VERDICTS = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(VERDICTS, st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(verdicts, data):
    n = len(verdicts[0])
    k = data.draw(st.integers(1, n))
    expected = [np.mean([any(s) for s in itertools.combinations(row, k)]) for row in verdicts]
    np.testing.assert_allclose(pass_at_k(np.array(verdicts), k), expected, atol=1e-12)


def test_pass_at_k_of_large_numbers():
    right = np.zeros((3, 2000), bool)
    right[1, :3] = right[2] = True
    expected = 1 - math.comb(1997, 1000) / math.comb(2000, 1000)
    np.testing.assert_allclose(pass_at_k(right, 1000), [0, expected, 1], rtol=1e-12)


@given(VERDICTS)
def test_pass_at_1_is_the_average_and_grows_with_k(verdicts):
    right = np.array(verdicts)
    np.testing.assert_allclose(pass_at_k(right, 1), average_at_n(right), atol=1e-12)
    curve = [pass_at_k(right, k) for k in range(1, right.shape[1] + 1)]
    assert np.all(np.diff(curve, axis=0) >= -1e-12)
    np.testing.assert_allclose(curve[-1], right.any(axis=1), atol=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_pass_at_k_beyond_n_is_refused(k):
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(np.ones((2, 3), bool), k)


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).beta(0.5, 0.5, size=80)
    ours = bootstrap(values, seed=1, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    # Monte Carlo error of the quantiles is about .0007 here.
    assert abs(ours.low - theirs.low) < 0.004
    assert abs(ours.high - theirs.high) < 0.004


def test_bootstrap_equals_enumeration_of_all_resamples():
    values = np.array([0.0, 0.1, 0.7, 1.0])
    means = [np.mean(s) for s in itertools.product(values, repeat=4)]
    low, high = np.quantile(means, [0.025, 0.975])
    ours = bootstrap(values, resamples=200_000)
    assert abs(ours.low - low) <= 0.03
    assert abs(ours.high - high) <= 0.03


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    samples = rng.binomial(8, 0.4, size=(400, 60)) / 8
    intervals = [bootstrap(s, seed=i, resamples=1000) for i, s in enumerate(samples)]
    coverage = np.mean([i.low <= 0.4 <= i.high for i in intervals])
    assert 0.9 < coverage < 0.99


def test_bootstrap_is_seeded_and_bounded():
    values = np.array([1.0, 0, 0, 1, 1])
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    same = bootstrap(np.full(7, 0.25))
    assert (same.mean, same.low, same.high) == (0.25, 0.25, 0.25)
    for bad in ([], [[1.0]]):
        with pytest.raises(ValueError, match="at least one problem"):
            bootstrap(np.array(bad))


def test_many_problems_are_resampled_in_pieces(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap(values, resamples=999)
    monkeypatch.setattr("experiments.evaluate.intervals._CHUNK", 333)
    assert bootstrap(values, resamples=999) == whole


def test_paired_difference_is_narrower_than_the_unpaired_one():
    rng = np.random.default_rng(5)
    difficulty = rng.random(200)
    before = rng.binomial(8, difficulty * 0.8) / 8
    after = rng.binomial(8, difficulty) / 8
    paired = paired_difference(after, before)
    assert paired.mean == pytest.approx(after.mean() - before.mean())
    assert paired.low < paired.mean < paired.high
    a, b = bootstrap(after), bootstrap(before)
    unpaired = math.hypot(a.high - a.low, b.high - b.low)
    assert paired.high - paired.low < 0.7 * unpaired
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(after, before[1:])


def test_crossed_bootstrap_equals_enumeration_of_all_resamples():
    values = np.random.default_rng(0).random((3, 4))
    means = [
        values[list(seeds)][:, list(problems)].mean()
        for seeds in itertools.product(range(3), repeat=2)
        for problems in itertools.product(range(4), repeat=4)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    ours = crossed_bootstrap(values, resamples=200_000)
    assert ours.mean == pytest.approx(values.mean())
    assert abs(ours.low - low) <= 0.01
    assert abs(ours.high - high) <= 0.01


def test_crossed_bootstrap_of_one_seed_is_over_problems():
    values = np.random.default_rng(1).random(300)
    crossed, plain = crossed_bootstrap(values[None]), bootstrap(values)
    assert crossed.mean == pytest.approx(plain.mean)
    assert abs(crossed.low - plain.low) < 0.002
    assert abs(crossed.high - plain.high) < 0.002


def test_crossed_bootstrap_sees_the_variance_between_seeds():
    """Where seeds alone differ, its variance is the unbiased one of their mean."""
    between = np.random.default_rng(6).random(8)
    interval = crossed_bootstrap(np.repeat(between[:, None], 50, axis=1), level=0.6827)
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(between.std(ddof=1) / math.sqrt(8), rel=0.05)


@pytest.mark.parametrize("between", [0.0, 0.6])
def test_crossed_bootstrap_covers_the_truth_at_least_about_as_often_as_it_says(between):
    rng = np.random.default_rng(2)
    draws = rng.standard_normal(200_000) * math.hypot(between, 1.0)
    truth = np.mean(1 / (1 + np.exp(-draws)))
    hits = []
    for trial in range(150):
        logits = rng.normal(0, between, (5, 1)) + rng.standard_normal((1, 100))
        values = rng.random((5, 100)) < 1 / (1 + np.exp(-logits))
        interval = crossed_bootstrap(values, seed=trial, resamples=500)
        hits.append(interval.low <= truth <= interval.high)
    assert np.mean(hits) > 0.88


def test_crossed_bootstrap_is_seeded_and_refuses_nothing(monkeypatch):
    values = np.random.default_rng(3).random((2, 30))
    assert crossed_bootstrap(values, seed=4) == crossed_bootstrap(values, seed=4)
    for bad in ([], [1.0], [[]]):
        with pytest.raises(ValueError, match="one seed and one problem"):
            crossed_bootstrap(np.array(bad))
    whole = crossed_bootstrap(values, resamples=999)
    monkeypatch.setattr("experiments.evaluate.intervals._CHUNK", 333)
    assert crossed_bootstrap(values, resamples=999) == whole


def test_majority_votes():
    answers = [
        ["2", "3", " 2"],
        ["3", "2", "3"],
        ["3", "2", None],
        [None, None, "2"],
        [None, None, None],
        ["1 / 2", "1/2", "2"],
    ]
    right = np.array([[a is not None and a.strip() == "2" for a in row] for row in answers])
    np.testing.assert_array_equal(
        majority_at_n(answers, right), [True, False, False, True, False, False]
    )


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from("123"), min_size=5, max_size=5), min_size=1, max_size=5))
def test_majority_equals_brute_force(answers):
    right = np.array([[a == "1" for a in row] for row in answers])
    expected = [max(row, key=lambda a, row=row: (row.count(a), -row.index(a))) for row in answers]
    np.testing.assert_array_equal(majority_at_n(answers, right), [a == "1" for a in expected])


def test_the_mean_of_sets_counts_each_alike():
    sets = [np.array([1.0, 0.0, 1.0]), np.zeros(40), np.ones(1)]
    found = mean_of_sets(sets)
    assert found.mean == pytest.approx((2 / 3 + 0 + 1) / 3)
    # Only the first varies: 0, 1, 2 or 3 right of three, with chances 1/27, 6/27, 12/27, 8/27.
    assert (found.low, found.high) == pytest.approx((1 / 3, 2 / 3))
    one = np.random.RandomState(0).rand(50)
    assert mean_of_sets([one]) == bootstrap(one)
    with pytest.raises(ValueError, match="at least one set"):
        mean_of_sets([])
    with pytest.raises(ValueError, match="a problem in each"):
        mean_of_sets([one, np.array([])])
