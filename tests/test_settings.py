"""What holds for the settings of every method."""

from __future__ import annotations

import dataclasses
import re

import pytest

from atesd import ControllerSettings, LossSettings, TeacherSettings
from distill.losses.signal import Signal
from grpo.policy_gradient import GrpoSettings
from mixtures.rollout import StepRolloutSettings
from models.decoding.sampling import Sampling
from motab import MotabSettings
from topd import GuidanceSettings, TransportSettings, WindowSettings

SETTINGS = (
    ControllerSettings,
    GrpoSettings,
    GuidanceSettings,
    LossSettings,
    MotabSettings,
    Sampling,
    Signal,
    StepRolloutSettings,
    TeacherSettings,
    TransportSettings,
    WindowSettings,
)
NUMBERS = [
    (cls, field.name)
    for cls in SETTINGS
    for field in dataclasses.fields(cls)
    if type(field.default) in (int, float)
]


def test_there_are_numbers_in_all_of_them():
    assert {cls for cls, _ in NUMBERS} == set(SETTINGS)


@pytest.mark.parametrize(("cls", "field"), NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "1", True])
def test_what_is_no_finite_number_is_refused_by_name(cls, field, value):
    with pytest.raises(ValueError, match=rf"(^|\.){field}={re.escape(repr(value))}"):
        cls(**{field: value})
