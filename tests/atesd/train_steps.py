"""Train steps of tiny models, compiled once for all tests of a module."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax

from atesd import (
    ControllerSettings,
    LossSettings,
    TeacherSettings,
    init_method_state,
    make_train_step,
)
from distill.train.state import create_state

from ..motab import tiny
from . import tiny_exposed
from .tiny_exposed import EOS, RESPONSE, STUDENT, TEACHER

STEPS, HOLD = 12, 3
PARAMS, TEACHER_PARAMS = tiny.params(STUDENT, 1), tiny.params(TEACHER, 2)
OTHERS = tiny.params(STUDENT, 3)
OPTIMIZER = optax.adam(1e-2)
KEY = jax.random.key(5)
FIXED = ControllerSettings(policy="fixed", hold=HOLD)
LEARNED = ControllerSettings(
    hold=HOLD, look_ahead=2, decisions_per_update=2, hidden=4, learning_rate=0.5, entropy_warmup=0
)
FROZEN = TeacherSettings()
PROBE = tiny_exposed.rows(77, 3)


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@functools.cache
def jitted(controller, teacher=FROZEN, teacher_config=STUDENT):
    """The step, and a list that grows by one with every trace."""
    traces = []
    step = make_train_step(
        STUDENT, teacher_config, LossSettings(), controller, teacher, OPTIMIZER, STEPS, RESPONSE, EOS
    )  # fmt: skip

    def traced(*inputs):
        traces.append(1)
        return step(*inputs)

    # The arms of bit-for-bit comparisons are compiled as usual.
    options = {} if controller.policy == "fixed" else tiny_exposed.QUICK
    return jax.jit(traced, compiler_options=options), traces


def start(controller, teacher=FROZEN):
    return create_state(PARAMS, OPTIMIZER, init_method_state(PARAMS, KEY, controller, teacher))


def batches(seed):
    return tiny_exposed.batch(seed), tiny_exposed.pack(PROBE)


def train(controller, teacher, teacher_config, teacher_params, steps):
    """States (the first is the initial one) and metrics of a few steps, on the host."""
    step, _ = jitted(controller, teacher, teacher_config)
    state, states, metrics = start(controller, teacher), [], []
    states.append(jax.device_get(state))
    for seed in range(steps):
        state, measured = step(state, teacher_params, batches(seed))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(measured))
    return states, metrics
