"""Settings out of range are refused by name."""

from __future__ import annotations

import pytest

import motab

from . import tiny


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signal", "entropy"),
        ("boundary", "none"),
        ("correction", "forward"),
        ("loss_on", "all"),
        ("safe_loss", "k1"),
        ("gamma_0", -0.1),
        ("gamma_0", float("nan")),
        ("gamma_0", 5),
        ("alpha", -1.0),
        ("student_temperature", -1.0),
        ("teacher_temperature", -0.5),
        ("entropy_top_k", 0),
        ("max_step_tokens", 0),
        ("max_total", 0),
        ("max_correction", 0),
        ("min_correction", 0),
        ("chunk", 0),
        ("jsd_beta", 1.5),
        ("delimiter", ""),
    ],
)
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"motab.{field}"):
        motab.MotabSettings(**{field: value})


def test_corrections_that_could_never_be_are_refused():
    with pytest.raises(ValueError, match="min_correction"):
        motab.MotabSettings(min_correction=10, max_correction=9)


def test_defaults_are_the_papers():
    s = motab.MotabSettings()
    assert (s.gamma_0, s.alpha, s.entropy_top_k, s.loss_on) == (0.3, 1.0, 20, "eq11")
    assert (s.max_step_tokens, s.max_total, s.min_correction) == (8192, 32768, 256)
    assert (s.student_temperature, s.teacher_temperature) == (0.6, 0.6)


def test_a_rollout_needs_an_end_of_sequence():
    with pytest.raises(ValueError, match="eos_ids"):
        motab.make_rollout(
            tiny.STUDENT, tiny.TEACHER, motab.MotabSettings(), tiny.TABLE,
            tiny.DELIMITER_IDS, tiny.REVISION_IDS, (),
        )  # fmt: skip
