"""Compiled step rollouts of the tiny pair; p, beta and the step budget are traced."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mixtures.policies import SKD, ImitKD
from mixtures.rollout import StepRolloutSettings, make_step_rollout

from ..motab import tiny

SETTINGS = StepRolloutSettings(
    student_temperature=1.0,
    teacher_temperature=0.7,
    max_step_tokens=9,
    max_total=40,
    chunk=7,
    train="likelihood",
)
POLICIES = {"imitkd": ImitKD, "skd": SKD}
ROWS = 8


@functools.cache
def jitted(name: str, settings: StepRolloutSettings = SETTINGS):
    @jax.jit
    def run(student, teacher, prompts, lengths, ids, key, parameter, max_step_tokens):
        traced = dataclasses.replace(settings)
        object.__setattr__(traced, "max_step_tokens", max_step_tokens)
        rollout = make_step_rollout(
            tiny.STUDENT, tiny.TEACHER, POLICIES[name](parameter), traced, tiny.TABLE, (tiny.EOS,)
        )
        return rollout(student, teacher, prompts, lengths, ids, key)

    def call(*inputs, parameter, max_step_tokens=9):
        out = run(*inputs, jnp.float32(parameter), jnp.int32(max_step_tokens))
        return jax.device_get(out)

    return call
