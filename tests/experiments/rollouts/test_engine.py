"""Slots: what is written is what a whole batch would write, whoever shares the slots, in few steps."""

from __future__ import annotations

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import motab
from distill.roles import Role, role_key
from distill.rollouts.one_writer import make_slots as plain_slots
from experiments.machine.compilation import Watch
from experiments.rollouts import engine as module
from experiments.rollouts.engine import Engine, Request, key_data
from mixtures.policies import SKD, ImitKD
from mixtures.rollout import StepRolloutSettings, make_step_slots
from models.decoding.generate import make_slots
from models.decoding.sampling import Sampling
from models.decoding.slots import Rows, run

from ...motab import tiny

ROWS, WIDTH, TOTAL = 14, 20, 24
PARAMS = tiny.params(tiny.STUDENT, 1, 2.0), tiny.params(tiny.TEACHER, 2, 1.0)
EOS = (tiny.EOS,)
MOTAB = motab.MotabSettings(
    gamma_0=0.3, max_total=TOTAL, max_correction=16, min_correction=2, max_step_tokens=9, chunk=3,
    student_temperature=1.0, teacher_temperature=1.0,
)  # fmt: skip
STEPS = StepRolloutSettings(max_step_tokens=9, max_total=TOTAL, chunk=4)


@functools.cache
def rollout(name):
    """Slots, and the parameters that they take."""
    if name == "plain":
        sampling = Sampling(0.9, top_p=0.9)
        return plain_slots(tiny.STUDENT, sampling, TOTAL, EOS), PARAMS[0]
    if name == "motab":
        slots = motab.make_slots(
            tiny.STUDENT, tiny.TEACHER, MOTAB, tiny.TABLE, tiny.DELIMITER_IDS, tiny.REVISION_IDS,
            EOS,
        )  # fmt: skip
        return slots, PARAMS
    policy = {"skd": SKD(0.5), "imitkd": ImitKD(0.5)}[name]
    return make_step_slots(tiny.STUDENT, tiny.TEACHER, policy, STEPS, tiny.TABLE, EOS), PARAMS


@functools.cache
def requests():
    """Prompts of many lengths, several of them more than once; two rounds; some budgets."""
    generator = np.random.default_rng(3)
    prompts = [
        tuple(map(int, generator.integers(1, len(tiny.TOKENS), n))) for n in (1, 3, 20, 7, 16, 2)
    ]
    keys = [key_data(jax.random.fold_in(jax.random.key(5), n)) for n in range(2)]
    chosen = [0, 0, 1, 2, 3, 3, 3, 4, 5, 0, 2, 1, 4, 4]
    budgets = [None, None, 0, 5, None, None, 1, None, None, 0, None, None, 99, None]
    return tuple(
        Request(prompts[p], 10 + i, keys[i % 2], i, budget)
        for i, (p, budget) in enumerate(zip(chosen, budgets, strict=True))
    )


@functools.cache
def expected(name):
    """The whole batch at once, inside jit."""
    slots, params = rollout(name)
    prompts = np.zeros((ROWS, WIDTH), np.int32)
    for i, request in enumerate(requests()):
        prompts[i, : len(request.prompt)] = request.prompt
    rows = Rows(
        jnp.asarray(prompts),
        jnp.asarray([len(r.prompt) for r in requests()]),
        jax.random.wrap_key_data(jnp.asarray(np.stack([r.key for r in requests()]))),
        jnp.asarray([r.sample_id for r in requests()]),
        jnp.asarray([TOTAL if r.budget is None else min(r.budget, TOTAL) for r in requests()]),
    )
    return jax.device_get(jax.jit(run, static_argnums=0)(slots, params, rows))


def through(name, count, order=range(ROWS), width=WIDTH):
    """Outputs in the order of `requests`, and the engine."""
    slots, params = rollout(name)
    engine = Engine(slots, count, width)
    rows = {}
    for outputs, done in engine.run(params, (requests()[i] for i in order)):
        for b, request in enumerate(done):
            rows[request.payload] = jax.tree.map(lambda x: x[b], outputs)  # noqa: B023
    assert len(rows) == len(order)
    return jax.tree.map(lambda *x: np.stack(x), *[rows[i] for i in sorted(rows)]), engine


def assert_same(got, expected):
    """Tokens and indices are equal; what is measured in nats or probabilities agrees to 1e-4."""

    def compare(path, a, b):
        if np.issubdtype(b.dtype, np.floating):
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=str(path))
        else:
            np.testing.assert_array_equal(a, b, err_msg=str(path))

    jax.tree.map_with_path(compare, *map(_meant, (got, expected)))


def _meant(outputs):
    """Of a record only what it says it holds: behind it lies whatever a chunk left."""
    if not isinstance(outputs, tuple) or not isinstance(outputs[1], motab.Record):
        return outputs
    trajectories, record = outputs
    judged = np.arange(TOTAL) < record.num_steps_B[:, None]
    by_step = ("values_BxL", "boundaries_BxL", "step_ends_BxL", "delimited_BxL")
    masked = {name: np.where(judged, getattr(record, name), 0) for name in by_step}
    # Tokens up to the end of the last step that was judged.
    last = np.maximum(record.num_steps_B - 1, 0)[:, None]
    kept = np.arange(TOTAL) < np.take_along_axis(record.step_ends_BxL, last, axis=1)
    kept &= record.num_steps_B[:, None] > 0
    masked["steps_BxN"] = np.where(kept, record.steps_BxN, 0)
    masked["scores"] = jax.tree.map(lambda x: np.where(kept, x, 0), record.scores)
    return trajectories, record.replace(**masked)


@pytest.mark.parametrize("count", [*(pytest.param(x, marks=pytest.mark.slow) for x in (1, 30)), 3])
@pytest.mark.parametrize("name", [pytest.param("plain", marks=pytest.mark.slow), "motab"])
def test_any_number_of_slots_gives_the_same_rows(name, count):
    got, engine = through(name, count)
    assert_same(got, expected(name))
    assert engine.report.rows == ROWS
    if name == "motab":
        _, record = got
        assert 3 <= np.sum(record.breach_B >= 0) <= ROWS - 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skd", "imitkd"])
def test_texts_written_in_turns_are_the_same(name):
    assert_same(through(name, 4)[0], expected(name))


@pytest.mark.parametrize("name", ["plain", "motab"])
def test_order_and_company_do_not_matter(name):
    order = random.Random(0).sample(range(ROWS), ROWS)
    assert_same(through(name, 3, order)[0], expected(name))
    some = order[:6]
    part = jax.tree.map(lambda x: x[np.sort(some)], expected(name))
    assert_same(through(name, 3, some)[0], part)


def test_rows_without_a_budget_hold_their_prompt_alone():
    got, _ = through("plain", 3)
    for i, request in enumerate(requests()):
        if request.budget == 0:
            assert np.sum(got.segment_ids_BxT[i]) == len(request.prompt)
        if request.budget == 1:
            assert np.sum(got.segment_ids_BxT[i]) == len(request.prompt) + 1


def test_copies_of_a_prompt_share_its_prefill():
    together = sorted(range(ROWS), key=lambda i: requests()[i].prompt)
    got, engine = through("plain", 30, together)
    assert_same(got, expected("plain"))
    assert engine.report.prefilled == len({r.prompt for r in requests()}) == 6
    copies = [Request((4, 5), i, key_data(jax.random.key(0))) for i in range(40)]
    slots, params = rollout("plain")
    engine = Engine(slots, 4, WIDTH)
    done = sum(len(requests) for _, requests in engine.run(params, copies))
    assert (done, engine.report.prefilled) == (40, 1)


def test_nothing_compiles_on_the_second_pass():
    through("motab", 3)
    watch, programs = Watch(), module.programs()
    through("motab", 3)
    assert (watch.programs, module.programs()) == (0, programs)
    through("plain", 2)  # another shape is another program
    assert module.programs() > programs


def forced(budgets, count, prompt=(3, 1, 2), chunk=8):
    """An engine after rows of exactly these lengths."""
    longest = max(budgets)
    slots = make_slots(tiny.STUDENT, Sampling(), longest, (99,), chunk)
    engine = Engine(slots, count, 16)
    key = key_data(jax.random.key(1))
    written = {}
    for out, done in engine.run(
        PARAMS[0], (Request(prompt, i, key, i, int(n)) for i, n in enumerate(budgets))
    ):
        for b, request in enumerate(done):
            written[request.payload] = out.tokens_BxN[b, : out.lengths_B[b]]
    assert [len(written[i]) for i in range(len(budgets))] == list(budgets)
    return engine, written


@pytest.mark.slow
def test_slots_are_occupied_though_lengths_are_skewed():
    """By counted steps: a static batch of 8 would idle for most of them."""
    generator = np.random.default_rng(0)
    budgets = np.clip(generator.lognormal(np.log(40), 0.978, 96), 1, 240).astype(int)
    engine, _ = forced(budgets, 8)
    report = engine.report
    assert report.tokens == report.active_steps == budgets.sum()
    assert report.occupancy >= 0.9
    static = sum(8 * max(budgets[i : i + 8]) for i in range(0, 96, 8))
    assert report.slot_steps * 1.8 < static


@pytest.mark.slow
def test_capacity_grows_with_a_row_and_the_rows_do_not_notice():
    """A long row among short ones, over every stage of the cache and back."""
    budgets = [3, 200, 5, 9, 2, 30, 4, 7, 8, 3, 2, 40]
    engine, written = forced(budgets, 4)
    assert engine.capacity(33) == 64 and engine.capacity(10**6) == 16 + 200
    slots, params = engine.slots, PARAMS[0]
    rows = Rows(
        jnp.tile(jnp.array([[3, 1, 2]]), (12, 1)),
        jnp.full(12, 3),
        jnp.broadcast_to(jax.random.key(1), (12,)),
        jnp.arange(12),
        jnp.asarray(budgets),
    )
    static = jax.jit(run, static_argnums=0)(slots, params, rows)
    for i, n in enumerate(budgets):
        np.testing.assert_array_equal(written[i], static.tokens_BxN[i, :n])


@pytest.mark.slow
def test_corrections_that_start_late_in_a_chunk_find_room():
    """Texts that never end by themselves, through several stages of the cache."""
    settings = motab.MotabSettings(
        gamma_0=0.0178, boundary="static", correction="rewrite", max_total=90, max_correction=80,
        min_correction=1, max_step_tokens=9, chunk=26, student_temperature=1.0,
        teacher_temperature=1.0,
    )  # fmt: skip
    rows = 48
    prompts, lengths = jax.device_get(tiny.prompts(7, rows))
    slots = motab.make_slots(
        tiny.STUDENT, tiny.TEACHER, settings, tiny.TABLE, tiny.DELIMITER_IDS, tiny.REVISION_IDS,
        (99,),
    )  # fmt: skip
    key = jax.random.key(0)
    static = jax.jit(run, static_argnums=0)(
        slots, PARAMS,
        Rows(prompts, lengths, jnp.broadcast_to(key, (rows,)), np.arange(rows), np.full(rows, 90)),
    )  # fmt: skip
    record = jax.device_get(static[1])
    roots = np.maximum(record.root_B - 1, 0)
    starts = lengths + record.step_ends_BxL[np.arange(rows), roots]
    assert np.sum(starts[record.breach_B > 0] > 6) > 2  # a chunk further is beyond the first stage
    engine = Engine(slots, 4, prompts.shape[1])
    todo = (
        Request(tuple(map(int, p[:n])), i, key_data(key), i)
        for i, (p, n) in enumerate(zip(prompts, lengths, strict=True))
    )
    for (trajectories, _), done in engine.run(PARAMS, todo):
        for b, request in enumerate(done):
            np.testing.assert_array_equal(
                trajectories.tokens_BxT[b], static[0].tokens_BxT[request.payload]
            )


def test_noise_is_that_of_the_role():
    """Token for token what `generate` writes under the student's key."""
    got, _ = through("plain", 3)
    for i, request in enumerate(requests()):
        if request.budget is not None:
            continue
        key = role_key(jax.random.wrap_key_data(request.key), Role.STUDENT, 0)
        prompt = jnp.zeros((1, WIDTH), jnp.int32).at[0, : len(request.prompt)].set(
            jnp.asarray(request.prompt)
        )  # fmt: skip
        alone = models.generate(
            PARAMS[0], tiny.STUDENT, prompt, jnp.asarray([len(request.prompt)]), key, TOTAL, 0.9,
            0.9, eos_ids=EOS, row_ids=jnp.asarray([request.sample_id]), vocab_size=len(tiny.TOKENS),
        )  # fmt: skip
        first, count = len(request.prompt), int(alone.lengths_B[0])
        np.testing.assert_array_equal(
            got.tokens_BxT[i, first : first + count], alone.tokens_BxN[0, :count]
        )
        assert np.sum(got.segment_ids_BxT[i]) == first + count


def test_bad_requests_are_refused():
    slots, params = rollout("plain")
    with pytest.raises(ValueError, match="slots=0"):
        Engine(slots, 0, WIDTH)
    for prompt in ((), (1,) * (WIDTH + 1)):
        with pytest.raises(ValueError, match=f"has {len(prompt)} tokens; it must have 1 to 20"):
            list(
                Engine(slots, 2, WIDTH).run(
                    params, [Request(prompt, 0, key_data(jax.random.key(0)))]
                )
            )
