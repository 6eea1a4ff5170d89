"""What a trajectory must not depend on, and what gamma_0 = 0 must come to."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import motab
from distill.roles import Role, role_key

from . import tiny
from .test_rollout_reference import BASE

SETTINGS = dataclasses.replace(BASE, gamma_0=0.12)
ROWS = 24


def rollout(settings, prompts, lengths, ids, key=0, student=None, teacher=None):
    run = motab.make_rollout(
        tiny.STUDENT, tiny.TEACHER, settings, tiny.TABLE, tiny.DELIMITER_IDS, tiny.REVISION_IDS,
        (tiny.EOS,),
    )  # fmt: skip
    student = tiny.params(tiny.STUDENT, 1, 2.0) if student is None else student
    teacher = tiny.params(tiny.TEACHER, 2, 1.0) if teacher is None else teacher
    return jax.device_get(
        jax.jit(run)(student, teacher, prompts, lengths, ids, jax.random.key(key))
    )


def first_difference(a, b):
    """Positions of the first difference of two rows, or None."""
    different = np.flatnonzero(np.asarray(a) != np.asarray(b))
    return int(different[0]) if len(different) else None


@pytest.fixture(scope="module")
def batch():
    prompts, lengths = tiny.prompts(5, ROWS)
    return prompts, lengths, jnp.arange(ROWS)


@pytest.fixture(scope="module")
def expected(batch):
    trajectories, record = rollout(SETTINGS, *batch)
    assert 3 < np.sum(record.breach_B >= 0) < ROWS - 3
    return trajectories, record


def assert_same(got, expected):
    """Same trajectories. Values agree to 1e-4; no near-tie is among these rows, so tokens agree."""
    for name in ("tokens_BxT", "source_BxT", "likelihood_weights_BxT"):
        a, b = getattr(got[0], name), getattr(expected[0], name)
        width = min(a.shape[1], b.shape[1])
        np.testing.assert_array_equal(a[:, :width], b[:, :width])
        assert not np.any(a[:, width:]) and not np.any(b[:, width:])
    for name in ("breach_B", "root_B", "num_steps_B", "dropped_B", "truncated_B"):
        np.testing.assert_array_equal(getattr(got[1], name), getattr(expected[1], name))
    judged = np.arange(got[1].values_BxL.shape[1]) < got[1].num_steps_B[:, None]
    for name in ("values_BxL", "boundaries_BxL"):
        a, b = getattr(got[1], name), getattr(expected[1], name)
        np.testing.assert_allclose(np.where(judged, a, 0), np.where(judged, b, 0), atol=1e-4)


@pytest.mark.parametrize(
    "chunk", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 16, 40)), 5]
)
def test_any_chunk_length_gives_the_same_trajectories(batch, expected, chunk):
    assert_same(rollout(dataclasses.replace(SETTINGS, chunk=chunk), *batch), expected)


def test_batch_composition_does_not_matter(batch, expected):
    prompts, lengths, ids = batch
    order = np.random.default_rng(0).permutation(ROWS)[:10]
    got = rollout(SETTINGS, prompts[order], lengths[order], ids[order])
    assert_same(got, jax.tree.map(lambda x: x[order], expected))


def test_prompt_padding_does_not_matter(batch, expected):
    prompts, lengths, ids = batch
    wide = jnp.pad(prompts, ((0, 0), (0, 30)), constant_values=7)
    assert_same(rollout(SETTINGS, wide, lengths, ids), expected)


def test_other_ids_and_keys_give_other_trajectories(batch, expected):
    prompts, lengths, ids = batch
    for got in (rollout(SETTINGS, prompts, lengths, ids + 100), rollout(SETTINGS, *batch, key=1)):
        same = np.all(got[0].tokens_BxT == expected[0].tokens_BxT, axis=1)
        assert np.mean(same) < 0.3


def test_gamma_0_gives_plain_student_rollouts(batch):
    """Token for token what `models.generate` writes under the student's key."""
    prompts, lengths, ids = batch
    student = tiny.params(tiny.STUDENT, 1, 2.0)
    settings = dataclasses.replace(SETTINGS, gamma_0=0.0)
    trajectories, record = rollout(settings, prompts, lengths, ids, student=student)
    assert np.all(record.breach_B == -1)
    plain = models.generate(
        student, tiny.STUDENT, prompts, lengths, role_key(jax.random.key(0), Role.STUDENT, 0),
        settings.max_total, eos_ids=(tiny.EOS,), row_ids=ids,
    )  # fmt: skip
    for b in range(ROWS):
        start, length = int(lengths[b]), int(plain.lengths_B[b])
        got = trajectories.tokens_BxT[b, start : start + length]
        np.testing.assert_array_equal(got, plain.tokens_BxN[b, :length])
        assert not np.any(trajectories.source_BxT[b, start + length :])


@pytest.mark.slow
def test_noise_of_a_correction_is_independent_of_the_rejected_tokens():
    """One model in both roles, every row breaching at once and going back to the prompt: the first
    token of the correction repeats the rejected one as often as two independent draws do."""
    config = tiny.config()
    params = tiny.params(config, 3, 1.5)
    rows = 4096
    settings = dataclasses.replace(
        BASE, boundary="static", gamma_0=1.0, max_total=12, max_step_tokens=1, min_correction=1
    )
    run = motab.make_rollout(
        config, config, settings, tiny.TABLE, tiny.DELIMITER_IDS, tiny.REVISION_IDS, (tiny.EOS,)
    )
    prompts, lengths = jnp.ones((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32)
    trajectories, record = jax.device_get(
        jax.jit(run)(params, params, prompts, lengths, jnp.arange(rows), jax.random.key(0))
    )
    corrected = record.breach_B == 0
    assert np.mean(corrected) > 0.8  # all but those whose first token ends the text
    rejected = trajectories.tokens_BxT[:, 1]
    inserted = len(tiny.DELIMITER_IDS) + len(tiny.REVISION_IDS)
    # A delimiter is put in unless the rejected token brought its own.
    first = 2 + np.where(record.delimited_BxL[:, 0], inserted - len(tiny.DELIMITER_IDS), inserted)
    correction = trajectories.tokens_BxT[np.arange(rows), first]
    probs = np.asarray(jax.nn.softmax(models.forward(params, config, prompts[:1])[0, 0]))
    # Given the rejected token r, an independent draw repeats it with probability p(r).
    p = probs[rejected[corrected]]
    matches = np.sum(rejected[corrected] == correction[corrected])
    deviation = (matches - p.sum()) / np.sqrt(np.sum(p * (1 - p)))
    assert abs(deviation) < 4, (matches, p.sum())


@pytest.mark.slow
def test_caches_have_room_for_corrections_that_start_late_in_a_chunk():
    """Long texts that never end by themselves, through several stages of the cache; the expected
    ones are written in a single chunk and so in a single stage."""
    rows = 256
    prompts, lengths = tiny.prompts(7, rows)
    base = dataclasses.replace(
        BASE,
        gamma_0=0.0178,
        boundary="static",
        correction="rewrite",
        max_total=90,
        max_correction=80,
    )

    def run(chunk):
        make = motab.make_rollout(
            tiny.STUDENT, tiny.TEACHER, dataclasses.replace(base, chunk=chunk), tiny.TABLE,
            tiny.DELIMITER_IDS, tiny.REVISION_IDS, (99,),
        )  # fmt: skip
        student, teacher = tiny.params(tiny.STUDENT, 1, 2.0), tiny.params(tiny.TEACHER, 2, 1.0)
        inputs = (student, teacher, prompts, lengths, jnp.arange(rows), jax.random.key(0))
        return jax.device_get(jax.jit(make)(*inputs))

    expected = run(90)
    roots = np.maximum(expected[1].root_B - 1, 0)
    starts = np.asarray(lengths) + expected[1].step_ends_BxL[np.arange(rows), roots]
    breached = expected[1].breach_B > 0
    assert np.sum(starts[breached] > 6) > 5  # a chunk further is beyond the first stage
    assert_same(run(26), expected)
