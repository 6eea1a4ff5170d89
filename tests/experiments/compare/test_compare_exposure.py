"""What a study's table says of exposure."""

import pytest

from experiments.compare.table.exposure import exposure


def records(values, **last):
    rows = [{"exposure": a, "mismatch": 2 * a, "disagreement": a / 2} for a in values]
    rows[-1] |= last
    return rows


def test_means_over_the_first_and_last_third_and_the_controllers_last_words():
    learned = {"beta_a": 2.0, "beta_b": 3.0, "decisions_completed": 7, "controller_updates": 1}
    found = exposure([records([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], **learned), records([0.3] * 7)])
    assert found is not None
    assert found["exposure_first"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["exposure_last"] == pytest.approx((0.9 + 0.3) / 2)
    assert found["mismatch_last"] == pytest.approx(2 * found["exposure_last"])
    assert found["disagreement_first"] == pytest.approx(found["exposure_first"] / 2)
    assert (found["beta_a"], found["beta_b"], found["decisions_completed"]) == (2.0, 3.0, 7.0)


def test_arms_without_exposure_have_none():
    assert exposure([[{"loss": 1.0}], []]) is None
    found = exposure([records([0.5])])
    assert found is not None and found["beta_a"] is None and found["exposure_last"] == 0.5
