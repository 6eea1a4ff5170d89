"""Every field of ATESD's settings is checked, and changes the step."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from atesd import (
    ControllerSettings,
    LossSettings,
    TeacherSettings,
    decide,
    init_controller,
    make_train_step,
    observe,
)

from .tiny_exposed import EOS, RESPONSE, STUDENT, TEACHER
from .train_steps import FIXED, FROZEN, HOLD, KEY, LEARNED, OPTIMIZER, OTHERS, STEPS, batches, start


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "moving"}, r"exposed\.weights='moving': choose one of"),
        ({"decay": 1.0}, r"exposed\.decay=1\.0 must lie in \[0, 1\)"),
        ({"probe_exposure": -0.1}, r"exposed\.probe_exposure=-0\.1 must lie in \[0, 1\]"),
        ({"grounding_rows": -1}, r"exposed\.grounding_rows=-1 must be 0 \(all\) or more"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        TeacherSettings(**fields)


@pytest.mark.parametrize("weights", ["ema", "live"])
def test_weights_of_the_student_do_not_fit_another_model(weights):
    with pytest.raises(ValueError, match=rf"exposed\.weights='{weights}' .* another model"):
        make_train_step(
            STUDENT, TEACHER, LossSettings(), FIXED, TeacherSettings(weights=weights), OPTIMIZER,
            STEPS, RESPONSE, EOS,
        )  # fmt: skip


CHANGES = [
    (LossSettings(), {"divergence": "reverse_kl"}),
    (LossSettings("jsd"), {"jsd_beta": 0.2}),
    (LossSettings(), {"temperature": 1.1}),
    (LossSettings(), {"clip": "token"}),
    (LossSettings(clip="summand"), {"clip_at": 0.06}),
    (LossSettings(), {"difficulty": "reference_length"}),
    (FROZEN, {"weights": "live"}),
    (TeacherSettings(weights="ema"), {"decay": 0.5}),
    (FROZEN, {"probe_exposure": 0.25}),
    (FROZEN, {"grounding_rows": 2}),
    (LEARNED, {"policy": "random"}),
    (FIXED, {"fixed": 0.25}),
    (ControllerSettings("schedule", schedule=((0, 1.0), (9, 0.5))), {"schedule": ((0, 1.0), (9, 0.4))}),
    (LEARNED, {"hold": 4}),
    (LEARNED, {"look_ahead": 4}),
    (LEARNED, {"discount": 0.9}),
    (LEARNED, {"lambda_gt": 0.4}),
    (LEARNED, {"standardise_reward": False}),
    (dataclasses.replace(LEARNED, look_ahead=HOLD), {"reward_loss": "probe"}),
    (LEARNED, {"decisions_per_update": 3}),
    (LEARNED, {"learning_rate": 0.25}),
    (LEARNED, {"hidden": 5}),
    (LEARNED, {"entropy_target": -0.2}),
    (LEARNED, {"entropy_weight": 0.02}),
    (LEARNED, {"entropy_warmup": 1}),
    (LEARNED, {"exposure_min": 0.1}),
    (LEARNED, {"exposure_max": 0.9}),
    (LEARNED, {"ema_decay": 0.8}),
    (LEARNED, {"groups": 2}),
]  # fmt: skip


# The loss on the probe is measured where it is rewarded.
PROBED = dataclasses.replace(LEARNED, look_ahead=HOLD, reward_loss="probe")


def program(settings):
    """What is compiled, with its constants, and the arrays it starts from."""
    if isinstance(settings, ControllerSettings):

        def run(state, *x):
            return observe(decide(state, settings, x[0], STEPS, *x[1:3]), settings, x[0], *x[3:])

        inputs = (init_controller(KEY, settings), 0, *(0.5,) * 6)
    else:
        is_loss = isinstance(settings, LossSettings)
        loss, teacher = (settings, FROZEN) if is_loss else (LossSettings(), settings)
        run = make_train_step(
            STUDENT, STUDENT, loss, PROBED, teacher, OPTIMIZER, STEPS, RESPONSE, EOS
        )
        inputs = (start(PROBED, teacher), OTHERS, batches(0))
    closed = jax.make_jaxpr(run)(*inputs)
    return str(closed), [np.asarray(x).tolist() for x in jax.tree.leaves((closed.consts, inputs))]


@pytest.mark.slow
def test_every_field_of_the_settings_changes_the_step():
    plain = functools.cache(program)
    for settings, fields in CHANGES:
        changed = dataclasses.replace(settings, **fields)
        assert program(changed) != plain(settings), fields
    assert program(LEARNED) == plain(LEARNED) and program(FROZEN) == plain(FROZEN)
    for kind in (LossSettings, TeacherSettings, ControllerSettings):
        named = {name for x, fields in CHANGES if isinstance(x, kind) for name in fields}
        assert named == {field.name for field in dataclasses.fields(kind)}
