"""A batch cut into parts: the exposure, the update and the controller's observations are the whole's."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from atesd import LossSettings, TeacherSettings, init_method_state, make_train_step
from distill.train.state import create_state

from .tiny_exposed import EOS, QUICK, RESPONSE, STUDENT
from .train_steps import FIXED, FROZEN, KEY, LEARNED, OTHERS, PARAMS, STEPS, batches

# The momentum after the first step is the gradient itself.
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1, momentum=0.9))
TERCILES = dataclasses.replace(LEARNED, groups=3)
CASES = {
    "learned": (LossSettings(), LEARNED, FROZEN),
    "groups by confidence": (LossSettings(clip="summand"), TERCILES, FROZEN),
    "groups by length": (LossSettings(difficulty="reference_length"), TERCILES, FROZEN),
    "OPSD": (
        LossSettings(clip="token"),
        dataclasses.replace(FIXED, fixed=1.0),
        TeacherSettings(weights="ema", decay=0.5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_parts_give_the_update_of_the_whole(case):
    """Rows have responses of any length, and one has none."""
    loss, controller, teacher = CASES[case]

    def run(parts: int):
        step = jax.jit(
            make_train_step(
                STUDENT, STUDENT, loss, controller, teacher, OPTIMIZER, STEPS, RESPONSE, EOS, parts
            ),
            compiler_options=QUICK,
        )
        carried = init_method_state(PARAMS, KEY, controller, teacher)
        state, found = create_state(PARAMS, OPTIMIZER, carried), []
        for seed in range(2):
            state, metrics = step(state, OTHERS, batches(seed))
            found.append(jax.device_get((state, metrics)))
        return found

    parts = 2 if case == "groups by confidence" else 3
    with jax.default_matmul_precision("highest"):
        whole, cut = run(1), run(parts)
    for (state, metrics), (wanted, expected) in zip(cut, whole, strict=True):
        assert metrics.keys() == expected.keys()
        leaves = jax.tree_util.tree_leaves_with_path(wanted)
        for (path, x), got in zip(leaves, jax.tree.leaves(state), strict=True):
            name, slack = jax.tree_util.keystr(path), 1e-6 + 2e-5 * np.abs(x).max()
            np.testing.assert_allclose(got, x, rtol=1e-4, atol=slack, err_msg=name)
        for name, x in expected.items():
            np.testing.assert_allclose(metrics[name], x, rtol=1e-4, atol=2e-6, err_msg=name)
    assert whole[0][1]["grad_norm"] > 0.05  # so that clipping acts
    assert whole[0][1]["empty_responses"] == 1
