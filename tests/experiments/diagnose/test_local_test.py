"""The local test: its prefixes, what the steps do, and what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments.config.read import read_config
from experiments.diagnose.local_steps import find_prefixes, local_test, table
from experiments.methods.topd import TopdRecipe
from experiments.pair.pair import load_pair, start_student

from ..topd_runs import small


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Nothing here runs for long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
def test_prefixes_are_candidates_above_the_quantile():
    config = small()
    pair = load_pair(read_config(config))
    recipe, data = TopdRecipe.from_config(read_config(config), pair), read_config(config).data.train
    found, threshold = find_prefixes(recipe, data, start_student(pair, config.seed), 5, 8)
    assert found.at_N.shape == (5,) and threshold > 0
    for i in range(5):
        student = found.student_NxK[i, : found.student_counts_N[i]].tolist()
        teacher = found.teacher_NxK[i, : found.teacher_counts_N[i]].tolist()
        assert student != teacher
    with pytest.raises(ValueError, match="prefixes=9999, but the 32 training problems gave"):
        find_prefixes(recipe, data, start_student(pair, config.seed), 9999, 16)


@pytest.mark.slow
def test_a_large_weight_brings_windows_closer_than_opd_alone():
    results = local_test(read_config(small()), prefixes=6, steps=5, rate=3e-3, lambdas=[1.0, 10.0])
    assert results["before"]["mean"] > results["threshold"]
    assert list(results["after"]) == ["opd", "topd, lambda 1", "topd, lambda 10"]
    opd, _, strong = (x["mean"] for x in results["after"].values())
    assert strong < results["before"]["mean"] and strong < opd
    for x in results["after"].values():
        assert x["low"] <= x["mean"] <= x["high"] and 0 <= x["closer"] <= 1
    assert np.isfinite(results["threshold"]) and table(results).row_count == 4


@pytest.mark.parametrize(
    ("arg", "fields", "numbers", "message"),
    [
        ("opd-smoke", {}, {}, "needs L_traj"),
        ("low_ot-smoke", {}, {}, "needs L_traj"),
        ("smoke", {"guidance": {"rule": "loss"}}, {}, r"guidance\.rule='loss' has no threshold"),
        ("smoke", {}, {"prefixes": 0}, "prefixes=0 must be at least 1"),
        ("smoke", {}, {"steps": 0}, "steps=0 must be at least 1"),
        ("smoke", {}, {"rate": 0.0}, r"rate=0\.0"),
        ("smoke", {}, {"lambdas": [0.0]}, r"lambdas=\[0\.0\]"),
    ],
)
def test_what_makes_no_sense_is_refused(arg, fields, numbers, message):
    asked = {"prefixes": 4, "steps": 2, "rate": 1e-3, "lambdas": [0.1], **numbers}
    with pytest.raises(ValueError, match=message):
        local_test(read_config(small(arg, **fields)), **asked)
