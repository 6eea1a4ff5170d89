"""The jitted ImitKD and SKD against the same written out in plain Python."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.trajectories import Source

from ..motab import reference, tiny
from . import step_reference
from .step_rollouts import ROWS, SETTINGS, jitted

SEEDS = 14
PARAMETERS = {"imitkd": [0.2, 0.5, 0.8], "skd": [0.0, 0.3, 0.6, 0.8, 1.0, 2.0]}
SOURCES = {"student": Source.STUDENT, "teacher": Source.TEACHER}


def compare(row: step_reference.Row, trajectories, record, b: int, prompt) -> None:
    """Everything the reference knows of a row, against row b of the package's."""
    start, end = len(prompt), len(prompt) + len(row.response)
    t = jax.tree.map(lambda x: x[b], trajectories)
    assert t.tokens_BxT[:end].tolist() == prompt + row.response
    assert t.source_BxT[:start].tolist() == [Source.PROMPT] * start
    assert t.source_BxT[start:end].tolist() == [SOURCES[w] for w in row.writers]
    assert t.likelihood_weights_BxT.tolist() == [
        float(start <= i < end) for i in range(len(t.tokens_BxT))
    ]
    assert not np.any(t.divergence_weights_BxT)
    assert t.segment_ids_BxT.tolist() == [int(i < end) for i in range(len(t.tokens_BxT))]
    assert not np.any(t.tokens_BxT[end:]) and not np.any(t.source_BxT[end:])
    assert record.steps_BxN[b, : len(row.steps)].tolist() == row.steps
    assert not np.any(record.steps_BxN[b, len(row.steps) :])
    assert int(record.student_steps_B[b]) == row.student_steps
    assert int(record.teacher_steps_B[b]) == row.teacher_steps
    assert int(record.rejected_B[b]) == row.rejected
    assert bool(record.truncated_B[b]) == row.truncated


@pytest.mark.parametrize("name", PARAMETERS)
def test_rollout_equals_plain_python(name):
    """More than a hundred random models and prompts; a difference must be a near-tie."""
    seen = collections.Counter()
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        student = tiny.params(tiny.STUDENT, 2 * seed, rng.uniform(1, 3))
        teacher = tiny.params(tiny.TEACHER, 2 * seed + 1, rng.uniform(0.5, 2))
        parameter = float(np.float32(rng.choice(PARAMETERS[name])))
        max_step_tokens = int(rng.choice([1, 3, 9, 40], p=[0.1, 0.3, 0.4, 0.2]))
        prompts, lengths = tiny.prompts(seed, ROWS)
        ids = jnp.asarray(rng.integers(0, 10_000, ROWS), jnp.int32)
        key = jax.random.key(seed)
        trajectories, record = jitted(name)(
            student, teacher, prompts, lengths, ids, key,
            parameter=parameter, max_step_tokens=max_step_tokens,
        )  # fmt: skip
        width = prompts.shape[1] + SETTINGS.max_total
        pair = (
            reference.Model(student, tiny.STUDENT, len(tiny.TOKENS), width),
            reference.Model(teacher, tiny.TEACHER, len(tiny.TOKENS), width),
        )
        for b in range(ROWS):
            prompt = prompts[b, : int(lengths[b])].tolist()
            row = step_reference.rollout(
                *pair, prompt, int(ids[b]), key, SETTINGS, max_step_tokens, tiny.TOKENS, ".\n\n",
                (tiny.EOS,), **{"p" if name == "imitkd" else "beta": parameter},
            )  # fmt: skip
            seen["tokens"] += len(row.response)
            if row.margin < 1e-4:
                seen["ties"] += 1
                continue
            compare(row, trajectories, record, b, prompt)
            for field in ("student_steps", "teacher_steps", "rejected", "truncated", "empty",
                          "at_budget", "across", "shorter"):  # fmt: skip
                seen[field] += getattr(row, field)
    assert seen["ties"] <= 2, seen
    edges = ["student_steps", "teacher_steps", "truncated", "empty", "at_budget", "across"]
    edges += ["rejected", "shorter"] if name == "skd" else []
    assert all(seen[edge] >= 5 for edge in edges), seen
