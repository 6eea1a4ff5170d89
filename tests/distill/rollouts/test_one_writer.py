"""Responses of one model as training rows."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import motab
from distill.roles import Role, role_key
from distill.rollouts.one_writer import make_rollout
from distill.trajectories import Source
from models.decoding.sampling import Sampling

from ...motab import tiny

ROWS, TOKENS = 16, 24
PROMPTS, LENGTHS = tiny.prompts(3, ROWS)
IDS = jnp.arange(ROWS) + 7
KEY = jax.random.key(11)
SAMPLING = Sampling(0.8, top_p=0.9)


@functools.cache
def write(role, train):
    rollout = make_rollout(
        tiny.TEACHER, SAMPLING, TOKENS, (tiny.EOS,), role, len(tiny.TOKENS), train
    )
    params = tiny.params(tiny.TEACHER, 4, 1.0)
    return jax.device_get(jax.jit(rollout)(params, PROMPTS, LENGTHS, IDS, KEY))


@pytest.mark.parametrize(
    ("role", "source", "train"),
    [
        (Role.STUDENT, Source.STUDENT, "divergence"),
        (Role.TEACHER, Source.TEACHER, "likelihood"),
        (Role.STUDENT, Source.STUDENT, "none"),
    ],
)
def test_rows_hold_what_generate_writes(role, source, train):
    got = write(role, train)
    assert got.tokens_BxT.shape == (ROWS, PROMPTS.shape[1] + TOKENS)
    written = models.generate(
        tiny.params(tiny.TEACHER, 4, 1.0), tiny.TEACHER, PROMPTS, LENGTHS, role_key(KEY, role, 0),
        TOKENS, 0.8, 0.9, eos_ids=(tiny.EOS,), row_ids=IDS, vocab_size=len(tiny.TOKENS),
    )  # fmt: skip
    assert len(set(written.lengths_B.tolist())) > 2
    for b in range(ROWS):
        start, count = int(LENGTHS[b]), int(written.lengths_B[b])
        end = start + count
        prompt, response = PROMPTS[b, :start].tolist(), written.tokens_BxN[b, :count].tolist()
        at = np.arange(got.tokens_BxT.shape[1])
        in_response = (at >= start) & (at < end)
        assert got.tokens_BxT[b].tolist() == prompt + response + [0] * (len(at) - end)
        expected = np.where(in_response, source, np.where(at < start, Source.PROMPT, 0))
        np.testing.assert_array_equal(got.source_BxT[b], expected)
        weights = {
            "likelihood": got.likelihood_weights_BxT,
            "divergence": got.divergence_weights_BxT,
        }
        for name, x in weights.items():
            np.testing.assert_array_equal(x[b], in_response * float(name == train))
        np.testing.assert_array_equal(got.positions_BxT[b], at)
        np.testing.assert_array_equal(got.segment_ids_BxT[b], at < end)


def test_student_and_teacher_have_noise_of_their_own():
    same = np.all(
        write(Role.STUDENT, "divergence").tokens_BxT
        == write(Role.TEACHER, "likelihood").tokens_BxT,
        axis=1,
    )
    assert np.mean(same) < 0.5


@pytest.mark.slow
def test_equals_motab_that_never_breaches():
    settings = motab.MotabSettings(
        gamma_0=0.0, max_total=TOKENS, max_correction=TOKENS, min_correction=1, max_step_tokens=9,
        chunk=7, student_temperature=0.8, safe_loss="reverse_kl",
    )  # fmt: skip
    monitored = motab.make_rollout(
        tiny.STUDENT, tiny.TEACHER, settings, tiny.TABLE, tiny.DELIMITER_IDS, tiny.REVISION_IDS,
        (tiny.EOS,),
    )  # fmt: skip
    student, teacher = tiny.params(tiny.STUDENT, 1, 2.0), tiny.params(tiny.TEACHER, 2, 1.0)
    expected, _ = jax.jit(monitored)(student, teacher, PROMPTS, LENGTHS, IDS, KEY)
    plain = make_rollout(tiny.STUDENT, Sampling(0.8), TOKENS, (tiny.EOS,))
    got = jax.jit(plain)(student, PROMPTS, LENGTHS, IDS, KEY)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eos_ids": ()}, "eos_ids is empty"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"role": Role.STEP_COIN}, "choose Role.STUDENT"),
        ({"train": "kl"}, "train='kl'"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    arguments = {"sampling": SAMPLING, "max_tokens": 4, "eos_ids": (tiny.EOS,)}
    with pytest.raises(ValueError, match=message):
        make_rollout(tiny.STUDENT, **{**arguments, **change})
