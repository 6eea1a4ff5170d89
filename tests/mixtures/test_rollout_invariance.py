"""What a text written in turns must not depend on, and what its ends come to."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.roles import Role
from distill.rollouts.one_writer import make_rollout
from mixtures.policies import SKD, ImitKD
from mixtures.rollout import StepRolloutSettings, make_step_rollout
from models.decoding.sampling import Sampling

from ..motab import tiny
from .step_rollouts import ROWS, SETTINGS, jitted

PARAMETERS = {"imitkd": 0.4, "skd": 0.6}
STUDENT = tiny.params(tiny.STUDENT, 6, 1.0)
TEACHER = tiny.params(tiny.TEACHER, 56, 1.0)
# Two batches, so that one compilation serves the tests of their composition.
PROMPTS, LENGTHS = tiny.prompts(5, 2 * ROWS)
IDS = jnp.arange(2 * ROWS) + 50


def run(name, rows, prompts=PROMPTS, settings=SETTINGS, key=0, ids=IDS, parameter=None):
    parameter = PARAMETERS[name] if parameter is None else parameter
    inputs = (STUDENT, TEACHER, prompts[rows], LENGTHS[rows], ids[rows], jax.random.key(key))
    return jitted(name, settings)(*inputs, parameter=parameter, max_step_tokens=5)


def both(name, **kwargs):
    """Both batches, one after the other, as one."""
    parts = [run(name, np.arange(ROWS) + start, **kwargs) for start in (0, ROWS)]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def assert_same(got, expected):
    """Equal up to the rows' width; beyond it there is nothing."""
    (got, got_record), (expected, expected_record) = got, expected
    width = min(got.tokens_BxT.shape[1], expected.tokens_BxT.shape[1])
    for field in ("tokens_BxT", "source_BxT", "likelihood_weights_BxT", "segment_ids_BxT"):
        a, b = getattr(got, field), getattr(expected, field)
        np.testing.assert_array_equal(a[:, :width], b[:, :width])
        assert not np.any(a[:, width:]) and not np.any(b[:, width:])
    jax.tree.map(np.testing.assert_array_equal, got_record, expected_record)


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request):
    """A mixture, and its rows in a plain run."""
    trajectories, record = both(request.param)
    assert np.sum(record.student_steps_B) > 20 and np.sum(record.teacher_steps_B) > 20
    assert np.sum(np.sum(trajectories.segment_ids_BxT, axis=1) > 34) > 2  # past a cache's growth
    return request.param, (trajectories, record)


@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 40])
def test_any_chunk_length_gives_the_same_trajectories(case, chunk):
    name, expected = case
    assert_same(both(name, settings=dataclasses.replace(SETTINGS, chunk=chunk)), expected)


def test_batch_composition_does_not_matter(case):
    name, expected = case
    rows = np.random.default_rng(0).permutation(2 * ROWS)[:ROWS]
    assert_same(run(name, rows), jax.tree.map(lambda x: x[rows], expected))


def test_prompt_padding_does_not_matter(case):
    name, expected = case
    wide = jnp.pad(PROMPTS, ((0, 0), (0, 20)), constant_values=7)
    assert_same(both(name, prompts=wide), expected)


def test_other_ids_and_keys_give_other_trajectories(case):
    name, expected = case
    for got in (both(name, ids=IDS + 100), both(name, key=1)):
        same = np.all(got[0].tokens_BxT == expected[0].tokens_BxT, axis=1)
        assert np.mean(same) < 0.3


@pytest.mark.parametrize(
    ("name", "parameter", "role"),
    [("skd", 0, Role.STUDENT), ("imitkd", 0, Role.STUDENT), ("imitkd", 1, Role.TEACHER)],
)
def test_at_its_ends_one_model_writes_everything(name, parameter, role):
    """beta = 0 and p = 0 are the student's rollout, p = 1 is the teacher's, token for token."""
    got, record = both(name, parameter=parameter)
    config, params, temperature = {
        Role.STUDENT: (tiny.STUDENT, STUDENT, SETTINGS.student_temperature),
        Role.TEACHER: (tiny.TEACHER, TEACHER, SETTINGS.teacher_temperature),
    }[role]
    plain = make_rollout(
        config, Sampling(temperature), SETTINGS.max_total, (tiny.EOS,), role,
        vocab_size=len(tiny.TOKENS), train="likelihood",
    )  # fmt: skip
    expected = jax.jit(plain)(params, PROMPTS, LENGTHS, IDS, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, got, jax.device_get(expected))
    assert not np.any(record.rejected_B)
    assert not np.any(record.teacher_steps_B if role == Role.STUDENT else record.student_steps_B)
    assert record.accepted_share == 1
    last = got.tokens_BxT[np.arange(2 * ROWS), np.sum(got.segment_ids_BxT, axis=1) - 1]
    np.testing.assert_array_equal(record.truncated_B, last != tiny.EOS)


def test_a_large_beta_leaves_the_student_only_empty_steps():
    """An end of sequence on its own stands; any other step is rewritten."""
    got, record = both("skd", parameter=1e9)
    assert not np.any(record.student_steps_B) and np.sum(record.rejected_B) > ROWS
    assert record.accepted_share == 0
    by_student = got.source_BxT == 2
    assert np.any(by_student) and np.all(got.tokens_BxT[by_student] == tiny.EOS)
    # A rejection comes to a step, or to an end of sequence that the teacher writes.
    ended = np.any((got.source_BxT == 5) & (got.tokens_BxT == tiny.EOS), axis=1)
    assert np.all(record.rejected_B - record.teacher_steps_B <= ended)


def test_coins_have_the_right_rate():
    """Over many rows and steps; and each row tosses its own."""
    keys = jax.vmap(jax.random.key)(jnp.arange(500))
    steps = jnp.broadcast_to(jnp.arange(20), (500, 20))
    for p in (0.0, 0.1, 0.5, 1.0):
        coins = np.asarray(ImitKD(p).teacher_opens(keys, steps))
        assert abs(np.mean(coins) - p) <= 4 * np.sqrt(p * (1 - p) / coins.size)
        rates = np.mean(coins, axis=1)
        # Variance between rows as of independent coins.
        assert np.var(rates) == pytest.approx(p * (1 - p) / 20, rel=0.3, abs=1e-9)
    assert not np.any(SKD(1.0).teacher_opens(keys, steps))


def test_skd_accepts_above_beta_alone():
    """pbar_T > beta pbar_S, strictly; beta = 0 takes what no probability can tell from 0."""
    cost = -jnp.log(jnp.array([0.5, 0.7, 2.0]))
    assert SKD(0.6).accepts(cost).tolist() == [False, True, True]
    assert SKD(1.0).accepts(jnp.zeros(1)).tolist() == [False]
    assert SKD(0.0).accepts(jnp.array([0.0, 1e4])).tolist() == [True, True]


def test_a_rewritten_step_has_noise_of_its_own():
    """One model in both roles, every step rejected: the first token of the rewritten step repeats
    the rejected one as often as independent draws do."""
    config, rows = tiny.config(layers=1), 1024
    params = tiny.params(config, 3, 1.5)
    settings = StepRolloutSettings(max_total=1, max_step_tokens=1, chunk=1)
    rollout = make_step_rollout(config, config, SKD(1e9), settings, tiny.TABLE, (tiny.EOS,))
    plain = make_rollout(config, Sampling(), 1, (tiny.EOS,))
    inputs = (jnp.ones((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32), jnp.arange(rows))
    key = jax.random.key(0)
    rejected = np.asarray(jax.jit(plain)(params, *inputs, key).tokens_BxT)[:, 1]
    got = jax.device_get(jax.jit(rollout)(params, params, *inputs, key)[0].tokens_BxT)[:, 1]
    judged = rejected != tiny.EOS
    probs = np.asarray(jax.nn.softmax(models.forward(params, config, inputs[0][:1])[0, 0]))
    p = probs[rejected[judged]]  # an independent draw repeats the rejected token with p(token)
    matches = np.sum(rejected[judged] == got[judged])
    assert abs(matches - p.sum()) / np.sqrt(np.sum(p * (1 - p))) < 4, (matches, p.sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": ImitKD(1.5)}, "p=1.5"),
        ({"policy": SKD(-0.1)}, "beta=-0.1"),
        ({"eos_ids": ()}, "eos_ids is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    arguments = {"policy": SKD(0.6), "settings": SETTINGS, "table": tiny.TABLE, "eos_ids": (0,)}
    with pytest.raises(ValueError, match=message):
        make_step_rollout(tiny.STUDENT, tiny.TEACHER, **{**arguments, **change})


@pytest.mark.parametrize("field", ["max_step_tokens", "max_total", "chunk"])
def test_a_budget_of_nothing_is_refused(field):
    with pytest.raises(ValueError, match=f"{field}=0"):
        StepRolloutSettings(**{field: 0})
