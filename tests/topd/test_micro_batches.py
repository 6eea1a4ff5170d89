"""A batch cut into parts: thresholds, caps and counts are those of the whole, and so is the update."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from distill.losses.signal import Signal
from distill.train.state import create_state
from topd import (
    GuidanceSettings,
    ProbedBatch,
    TransportSettings,
    init_method_state,
    make_train_step,
)

from . import tiny_probed as tp
from .tiny_probed import PARAMS, QUICK, STUDENT, TEACHER, TEACHER_PARAMS, WINDOWS

OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1, momentum=0.9))
CASES = {
    "guided": GuidanceSettings(buffer=6, min_buffer=1, high_quantile=0.3, gradient_ratio_every=1),
    "all windows, their sum": GuidanceSettings(rule="loss", reduction="sum", rows="plan"),
    "capped": GuidanceSettings(objective="cap_low", cap_share=0.6),
    "clipped": GuidanceSettings(objective="cap_high", cap="clip", cap_share=0.6),
}


@pytest.mark.parametrize(
    "case",
    [case if case == "capped" else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_parts_give_the_update_of_the_whole(case):
    settings = CASES[case]
    batch = ProbedBatch(*tp.probe(0, WINDOWS, TransportSettings(), settings))

    def run(parts: int):
        step = make_train_step(STUDENT, TEACHER, settings, Signal(), OPTIMIZER, micro_batches=parts)
        state = create_state(PARAMS, OPTIMIZER, init_method_state(settings))
        return jax.device_get(jax.jit(step, compiler_options=QUICK)(state, TEACHER_PARAMS, batch))

    with jax.default_matmul_precision("highest"):
        whole, expected = run(1)
        for parts in (2, 6) if case == "guided" else (3,):
            state, metrics = run(parts)
            assert metrics.keys() == expected.keys()
            for name, x in expected.items():
                np.testing.assert_allclose(metrics[name], x, rtol=1e-4, atol=1e-6, err_msg=name)
            for x, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
                np.testing.assert_allclose(
                    x, wanted, rtol=1e-5, atol=1e-6 * (1 + np.abs(wanted).max())
                )
    assert expected["grad_norm"] > 0.05  # so that clipping acts
    assert expected["capped" if "capped" in expected else "guided_windows"] >= 1
