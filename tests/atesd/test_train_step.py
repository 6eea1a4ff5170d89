"""ATESD's step against OPSD's, against NumPy, and against the controller run alone."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distill.train.update
import models
from atesd import LossSettings, TeacherSettings, decide, init_controller, observe
from distill.losses.chunked import readout, weighted_sum
from distill.losses.context import gather, teacher_view
from distill.losses.divergence import forward_kl
from distill.train.state import create_state

from . import tiny_exposed
from .tiny_exposed import RESPONSE, STUDENT, TEACHER
from .train_steps import (
    FIXED,
    FROZEN,
    HOLD,
    KEY,
    LEARNED,
    OPTIMIZER,
    OTHERS,
    PARAMS,
    PROBE,
    STEPS,
    TEACHER_PARAMS,
    batches,
    jitted,
    same,
    start,
    train,
)  # fmt: skip


@pytest.fixture(scope="module")
def learned():
    """A learned policy, and a frozen teacher of another architecture."""
    return train(LEARNED, FROZEN, TEACHER, TEACHER_PARAMS, STEPS)


# The first two rows alone are asked about, so that of three groups one at least is not observed.
AVERAGED = TeacherSettings(weights="ema", decay=0.75, grounding_rows=2)
GROUPED = dataclasses.replace(LEARNED, groups=3, look_ahead=HOLD, reward_loss="probe")


@pytest.fixture(scope="module")
def grouped():
    """A policy for three groups, rewarded on the probe; a teacher of averaged weights."""
    return train(GROUPED, AVERAGED, STUDENT, None, 4)


class Opsd(flax.struct.PyTreeNode):
    """A loss, and nothing else to tell."""

    mean: jax.Array
    tokens: jax.Array
    metrics: dict


def opsd_loss(params, teacher, trajectories, contexts, lengths):
    """The loss of OPSD, whose contexts were joined somewhere else."""
    t = trajectories
    weights = t.divergence_weights_BxT[:, 1:]
    inputs = (t.tokens_BxT[:, :-1], t.positions_BxT[:, :-1], t.segment_ids_BxT[:, :-1])
    student = readout(params, STUDENT, models.forward_hidden(params, STUDENT, *inputs))
    view = teacher_view(contexts, lengths, t, RESPONSE)
    hidden = models.forward_hidden(
        teacher, STUDENT, view.tokens_BxS, view.positions_BxS, view.segment_ids_BxS
    )
    target = readout(teacher, STUDENT, gather(hidden, view)[:, :-1])
    tokens = jnp.sum(weights, axis=1)
    means = weights * (1 / jnp.sum(tokens > 0) / jnp.maximum(tokens, 1.0))[:, None]
    # The bits are those of one way to sum; against plain NumPy see test_loss.py.
    loss = weighted_sum(lambda p, q, _: (forward_kl(q, p), ()), student, target, means)[0]
    return Opsd(loss, jnp.sum(tokens), {})


opsd = jax.jit(distill.train.update.make_train_step(opsd_loss, OPTIMIZER))


@pytest.mark.parametrize("exposure", ["1", "0"])
def test_whole_references_are_opsd_and_none_the_answer_alone_bit_for_bit(exposure):
    controller = dataclasses.replace(FIXED, fixed=float(exposure))
    # The exposure lies in the state: one program takes any.
    step, _ = jitted(FIXED)
    state = start(controller)
    other = create_state(state.params, OPTIMIZER)
    for seed in range(3):
        rows = tiny_exposed.rows(seed)
        joined = [row.context(exposure) for row in rows]
        for row, context in zip(rows, joined, strict=True):
            r = row.reference
            reasoning = r.reasoning if exposure == "1" else ()
            assert context == [*r.head, *reasoning, *r.answer, *r.tail]
        contexts = [c + [0] * (tiny_exposed.CONTEXT - len(c)) for c in joined]
        lengths = [len(c) for c in joined]
        batch, probe = batches(seed)
        state, metrics = step(state, OTHERS, (batch, probe))
        other, expected = opsd(
            other, OTHERS, batch.trajectories, jnp.array(contexts), jnp.array(lengths)
        )
        assert metrics["loss"] == expected["loss"] and metrics["exposure"] == float(exposure)
        assert same(state.params, other.params) and same(state.opt_state, other.opt_state)
    assert not same(other.params, PARAMS)


def test_without_a_probe_a_fixed_exposure_trains_the_same():
    step, _ = jitted(FIXED)
    batch, probe = batches(0)
    new, metrics = step(start(FIXED), OTHERS, (batch, probe))
    bare, fewer = step(start(FIXED), OTHERS, (batch, None))
    assert same(new.params, bare.params) and metrics["loss"] == fewer["loss"]
    assert set(metrics) - set(fewer) == {"probe_nll"}


def test_no_gradient_runs_into_the_teacher():
    """A live teacher is the student itself; the update is that with a frozen copy of it."""
    live, _ = jitted(FIXED, TeacherSettings(weights="live"))
    frozen, _ = jitted(FIXED)
    new, metrics = live(start(FIXED), None, batches(0))
    other, expected = frozen(start(FIXED), PARAMS, batches(0))
    assert same(new.params, other.params) and metrics["loss"] == expected["loss"] > 0.01
    # And it follows the student: from the second step on it is another teacher.
    _, metrics = live(new, None, batches(1))
    _, expected = frozen(other, PARAMS, batches(1))
    assert metrics["loss"] != expected["loss"]


@pytest.mark.slow
def test_an_averaged_teacher_is_the_running_average_and_teaches(grouped):
    states, metrics = grouped
    average = jax.tree.map(np.asarray, PARAMS)
    for k, state in enumerate(states):
        if k:
            average = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, average, state.params)
        got = state.method_state["teacher_params"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), got, average)  # fmt: skip
    assert not same(states[-1].method_state["teacher_params"], states[-1].params)
    for k in (0, 3):
        mismatch = np.mean([
            scores["mismatch"] for scores in scores_of(states, k, "ema") if scores is not None
        ])  # fmt: skip
        assert metrics[k]["mismatch"] == pytest.approx(mismatch, rel=1e-4)


def groups_of(params, rows, groups):
    hardest_last = sorted(
        range(len(rows)), key=lambda b: (-tiny_exposed.confidence(params, STUDENT, rows[b]), b)
    )
    group = np.empty(len(rows), int)
    group[hardest_last] = [rank * groups // len(rows) for rank in range(len(rows))]
    return group


def scores_of(states, k, weights):
    """What step k must have measured of every row, None without a response."""
    before, rows = states[k], tiny_exposed.rows(k)
    exposures = states[k + 1].method_state["controller"].exposure_G
    group = groups_of(before.params, rows, len(exposures))
    if weights == "ema":
        theirs, config = before.method_state["teacher_params"], STUDENT
    else:
        theirs, config = TEACHER_PARAMS, TEACHER
    return [
        tiny_exposed.row_scores(
            before.params, STUDENT, theirs, config, row, repr(float(exposures[group[b]])),
            LossSettings(),
        )
        if row.response
        else None
        for b, row in enumerate(rows)
    ]  # fmt: skip


@pytest.mark.slow
def test_metrics_are_means_over_rows_with_a_response(learned):
    states, metrics = learned
    k = 4
    scores = [s for s in scores_of(states, k, "frozen") if s is not None]
    assert len(scores) == len(tiny_exposed.RESPONSES) - 1
    for name in ("loss", "mismatch", "disagreement"):
        expected = np.mean([s[name] for s in scores])
        assert metrics[k][name] == pytest.approx(expected, rel=1e-4), name
    confidences = [
        tiny_exposed.confidence(states[k].params, STUDENT, row)
        for row in tiny_exposed.rows(k)
        if row.response
    ]
    assert metrics[k]["confidence"] == pytest.approx(np.mean(confidences), rel=1e-5)
    # One number, summed by two programs.
    assert metrics[k]["divergence"] == pytest.approx(metrics[k]["loss"], rel=1e-6)
    assert metrics[k]["clipped"] == 0 and metrics[k]["empty_responses"] == 1
    assert metrics[k]["loss_tokens"] == sum(tiny_exposed.RESPONSES)
    assert all(np.ndim(x) == 0 for x in metrics[k].values())


def test_the_probe_is_measured_at_decisions_alone(learned):
    states, metrics = learned
    seen = np.array([m["probe_nll"] for m in metrics])
    for k in range(STEPS):
        assert (seen[k] == seen[k - 1]) == (k % HOLD > 0), k
    for k in (0, HOLD):
        nll = [
            -tiny_exposed.mean_log_prob(states[k].params, STUDENT, row.prompt, row.whole_reference)
            for row in PROBE
        ]
        assert metrics[k]["probe_nll"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert not any("probe_loss" in m for m in metrics)  # nothing would read it


@pytest.mark.slow
def test_the_probes_loss_is_measured_where_it_is_rewarded(grouped):
    states, metrics = grouped
    assert metrics[0]["probe_loss"] == metrics[HOLD - 1]["probe_loss"]
    for k in (0, HOLD):
        before = states[k]
        losses = [
            tiny_exposed.row_scores(
                before.params, STUDENT, before.method_state["teacher_params"], STUDENT, row, "0.5",
                LossSettings(),
            )["loss"]
            for row in PROBE
            if row.response
        ]  # fmt: skip
        assert metrics[k]["probe_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def grounding(params, config, rows, exposures, group):
    return np.array([
        tiny_exposed.mean_log_prob(
            params, config, row.context(repr(float(exposures[group[b]]))), row.whole_reference
        )
        for b, row in enumerate(rows)
    ])  # fmt: skip


def test_the_teacher_is_asked_about_all_references(learned):
    states, metrics = learned
    for k in (0, HOLD):
        rows = tiny_exposed.rows(k)
        here = states[k + 1].method_state["controller"]
        expected = grounding(
            TEACHER_PARAMS, TEACHER, rows, here.exposure_G, np.zeros(len(rows), int)
        )
        assert metrics[k]["grounding_now"] == pytest.approx(np.mean(expected), rel=1e-5)
        slot = int(np.argmax(here.pending.start_C == k))
        q = here.pending.grounding_CxG[slot] / here.pending.weight_CxG[slot]
        assert q == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.slow
def test_of_a_few_rows_each_group_is_told_its_own(grouped):
    states, metrics = grouped
    unobserved = 0
    for k in (0, HOLD):
        rows = tiny_exposed.rows(k)
        before, here = states[k], states[k + 1].method_state["controller"]
        group = groups_of(before.params, rows, 3)
        q = grounding(
            before.method_state["teacher_params"], STUDENT, rows[:2], here.exposure_G, group
        )
        assert metrics[k]["grounding_now"] == pytest.approx(np.mean(q), rel=1e-5)
        slot = int(np.argmax(here.pending.start_C == k))
        for g in range(3):
            of_group = q[group[:2] == g]
            unobserved += not len(of_group)
            assert here.pending.weight_CxG[slot, g] == (len(of_group) > 0)
            if len(of_group):
                np.testing.assert_allclose(
                    here.pending.grounding_CxG[slot, g], np.mean(of_group), rtol=1e-5
                )
    assert unobserved and metrics[-1]["observations_skipped"] == 4


def test_exposures_are_those_of_the_controller_alone(learned):
    """Told what the step logs, it takes the same decisions; each holds for `hold` updates."""
    metrics = learned[1]

    @jax.jit
    def alone(state, k, m):
        state = decide(state, LEARNED, k, STEPS, m["probe_nll"], jnp.nan)
        return observe(
            state, LEARNED, k, m["loss"], m["mismatch"], m["grounding_now"], m["confidence"]
        )

    state, policy = init_controller(KEY, LEARNED), []
    for k, m in enumerate(metrics):
        state, seen = alone(state, k, m)
        for name, value in seen.items():
            np.testing.assert_allclose(m[name], value, rtol=1e-4, atol=1e-5, err_msg=f"{name} {k}")
        policy.append((float(m["beta_a"]), float(m["beta_b"])))
    exposures = [float(m["exposure"]) for m in metrics]
    for k in range(1, STEPS):
        assert (exposures[k] == exposures[k - 1]) == (k % HOLD > 0)
    # Decisions 0 and 1 are complete after step 5 and train the policy that takes the third.
    updates = [int(m["controller_updates"]) for m in metrics]
    assert updates == [0] * 5 + [1] * 6 + [2]
    assert policy[0] == policy[HOLD] != policy[2 * HOLD]


@pytest.mark.slow
def test_one_program_for_groups_and_an_averaged_teacher(grouped):
    assert len(jitted(GROUPED, AVERAGED, STUDENT)[1]) == 1


def test_one_program_for_all_steps_and_exposures(learned):
    assert len(jitted(LEARNED, FROZEN, TEACHER)[1]) == 1
    assert STEPS >= 2 * HOLD + 1
    assert len({float(m["exposure"]) for m in learned[1]}) == STEPS // HOLD


@pytest.mark.parametrize("k", [0, HOLD, HOLD + 1])
def test_the_step_is_pure_and_its_state_is_all_there_is(learned, k):
    """From arrays brought to the host and put into a new tree it goes on bit by bit."""
    states, metrics = learned
    step, _ = jitted(LEARNED, FROZEN, TEACHER)
    leaves = [np.array(x) for x in jax.tree.leaves(states[k])]
    assert all(x.dtype.kind in "fiub" for x in leaves)
    state = jax.tree.unflatten(jax.tree.structure(start(LEARNED)), [jnp.asarray(x) for x in leaves])
    for _ in range(2):
        new, measured = step(state, TEACHER_PARAMS, batches(k))
        assert same(new, states[k + 1]) and same(measured, metrics[k])
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), leaves, strict=True))


@pytest.mark.slow
def test_a_bad_batch_leaves_weights_and_averages_alone(grouped):
    """The controller counts it, and its clock goes on; the averaged teacher waits."""
    step, _ = jitted(GROUPED, AVERAGED, STUDENT)
    state = grouped[0][1]
    batch, probe = batches(1)
    huge = {**state.params, "head": state.params["head"] * 1e38}
    broken = state.replace(params=huge)
    new, metrics = step(broken, None, (batch, probe))
    assert (metrics["skipped"], metrics["idle"]) == (1, 0)
    assert same(new.opt_state, state.opt_state) and same(new.params["head"], huge["head"])
    assert same(new.method_state["teacher_params"], state.method_state["teacher_params"])
    assert int(new.step) == int(state.step) + 1
    controller, before = (x.method_state["controller"] for x in (new, state))
    assert int(controller.skipped) == int(before.skipped) + 1
    assert same(controller.params, before.params)


@pytest.mark.slow
def test_a_batch_of_empty_responses_changes_no_weight(grouped):
    step, _ = jitted(GROUPED, AVERAGED, STUDENT)
    state = grouped[0][1]
    batch, probe = batches(1)
    t = batch.trajectories
    t = t.replace(divergence_weights_BxT=jnp.zeros_like(t.divergence_weights_BxT))
    new, metrics = step(state, None, (batch.replace(trajectories=t), probe))
    assert (metrics["skipped"], metrics["idle"]) == (0, 1)
    assert metrics["empty_responses"] == len(t.tokens_BxT)
    assert same(new.params, state.params) and same(new.opt_state, state.opt_state)
    assert same(new.method_state["teacher_params"], state.method_state["teacher_params"])
