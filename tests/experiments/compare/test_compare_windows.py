"""What a study's table says of windows."""

import pytest

from experiments.compare.table.windows import windows


def records(values, **more):
    return [{"windows": 4, "distance": d, **more} for d in values]


def test_means_over_the_first_and_last_third():
    guided = {"low_distance": 0.1, "high": 0.5, "trajectory": 2.0, "gradient_ratio": 0.3}
    found = windows(
        [records([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], **guided), records([0.3] * 7, **guided)]
    )
    assert found is not None
    assert found["distance_first"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["distance_last"] == pytest.approx((0.9 + 0.3) / 2)
    assert (found["windows"], found["high_first"], found["trajectory_last"]) == (4.0, 0.5, 2.0)
    assert found["gradient_ratio"] == pytest.approx(0.3) and found["capped"] is None


def test_arms_without_windows_have_none_and_those_that_cap_have_no_threshold():
    assert windows([[{"loss": 1.0}], []]) is None
    found = windows([records([0.5, 0.7], capped=3)])
    assert found is not None
    assert found["capped"] == 3 and found["high_last"] is None and found["distance_last"] == 0.7


def test_a_ratio_counts_from_where_it_was_measured():
    unmeasured = [{"windows": 4, "distance": 0.1, "gradient_ratio": 0.0}] * 3
    measured = [*unmeasured, {**unmeasured[0], "gradient_ratio": 0.5}]
    found = windows([measured, unmeasured])
    assert found is not None and found["gradient_ratio"] == 0.5
    found = windows([unmeasured])
    assert found is not None and found["gradient_ratio"] is None
