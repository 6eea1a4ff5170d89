"""Windows from rewound caches against plain continuations of each prefix."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.roles import Role, role_key
from models.decoding.decode import extend, init_cache
from models.decoding.sampling import row_keys
from topd import GuidanceSettings, TransportSettings, WindowSettings, make_probe, windows

from . import tiny_probed as tp
from .tiny_probed import (
    EOS,
    KEY,
    PARAMS,
    STUDENT,
    TEACHER,
    TEACHER_PARAMS,
    VOCAB,
    WIDTH,
    WINDOWS,
)

MODELS = {"student": (PARAMS, STUDENT), "teacher": (TEACHER_PARAMS, TEACHER)}
# Three windows of a rollout overlap, and some of them end early.
SEEDS = (0, 1)
SAMPLED = dataclasses.replace(WINDOWS, temperature=1.0)
CONTEXTUAL = TransportSettings(embedding="contextual")


def each_window(trajectories, probe):
    """(row, window, prefix, tokens by model) of every window."""
    p = jax.device_get(probe)
    for b, w in zip(*np.nonzero(p.starts.valid_BxW), strict=True):
        at = p.starts.at_BxW[b, w]
        tokens = {
            "student": p.student_BxWxK[b, w, : p.student_counts_BxW[b, w]].tolist(),
            "teacher": p.teacher_BxWxK[b, w, : p.teacher_counts_BxW[b, w]].tolist(),
        }
        yield b, w, np.asarray(trajectories.tokens_BxT[b, :at]), tokens


@pytest.mark.parametrize("seed", SEEDS)
def test_both_models_continue_the_same_prefix(seed):
    trajectories, probe = tp.probe(seed)
    seen = 0
    for _, _, prefix, tokens in each_window(trajectories, probe):
        for role, (params, config) in MODELS.items():
            assert tokens[role] == tp.greedy(params, config, prefix, WIDTH)
        seen += 1
    assert seen == int(probe.starts.valid_BxW.sum()) > 8
    at = np.sort(np.where(probe.starts.valid_BxW, probe.starts.at_BxW, -99), axis=1)
    assert np.any((np.diff(at, axis=1) > 0) & (np.diff(at, axis=1) < WIDTH))  # they overlap
    unused = ~np.asarray(probe.starts.valid_BxW)
    for name in ("student_BxWxK", "teacher_BxWxK", "plan_BxWxKxK", "distance_BxW"):
        assert not np.any(np.asarray(getattr(probe, name))[unused])


def test_windows_end_with_an_end_of_sequence():
    counts = np.concatenate([np.ravel(tp.probe(s)[1].student_counts_BxW) for s in range(6)])
    assert {WIDTH, 0} < set(counts.tolist())
    for seed in range(6):
        for _, _, _, tokens in each_window(*tp.probe(seed)):
            for text in tokens.values():
                assert EOS not in text[:-1] and (len(text) == WIDTH or text[-1] == EOS)


def test_sampled_windows_have_noise_of_their_own_role():
    """As `generate` draws it, from the window's role, first position, model and row."""
    trajectories, probe = tp.probe(0, SAMPLED)
    differ = 0
    for b, _, prefix, tokens in each_window(trajectories, probe):
        prompt = int(np.sum(trajectories.source_BxT[b] == 1))
        for role, (params, config) in MODELS.items():
            attempt = 2 + 2 * len(prefix) + (role == "teacher")
            keys = row_keys(role_key(KEY, Role.PROBE, attempt), jnp.asarray([b]))
            text = list(map(int, prefix))
            for i in range(WIDTH):
                logits = jnp.asarray(tp.log_probs(params, config, text)[-1], jnp.float32)
                key = jax.random.fold_in(keys[0], len(prefix) - prompt + i)
                text.append(
                    int(jnp.argmax(logits + jax.random.gumbel(key, (config.vocab_size,))[:VOCAB]))
                )
                if text[-1] == EOS:
                    break
            assert tokens[role] == text[len(prefix) :]
            differ += tokens[role] != tp.greedy(params, config, prefix, WIDTH)
    assert differ > 8


def test_a_window_does_not_depend_on_the_batch_or_on_other_windows():
    trajectories, probe = tp.probe(0, SAMPLED)
    one = dataclasses.replace(SAMPLED, per_rollout=1)
    fewer = tp.probe(0, one)[1]
    for name in ("student_BxWxK", "teacher_BxWxK"):
        np.testing.assert_array_equal(getattr(probe, name)[:, :1], getattr(fewer, name))
    np.testing.assert_array_equal(probe.low_distance_Rx1, fewer.low_distance_Rx1)
    order = np.array([4, 0, 2, 5, 3, 1])
    turned = tp.prober(SAMPLED)(
        PARAMS, TEACHER_PARAMS, jax.tree.map(lambda x: x[order], trajectories), order, KEY
    )
    for name in ("student_BxWxK", "teacher_BxWxK"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(probe, name)[order])


def test_the_students_window_may_be_what_its_rollout_holds():
    trajectories, probe = tp.probe(0, dataclasses.replace(WINDOWS, student="reuse"))
    ends = np.sum(np.asarray(trajectories.source_BxT) != 0, axis=1)
    for b, _, prefix, tokens in each_window(trajectories, probe):
        at = len(prefix)
        expected = np.asarray(trajectories.tokens_BxT[b, at : min(at + WIDTH, ends[b])])
        assert tokens["student"] == expected.tolist()
        assert tokens["teacher"] == tp.greedy(TEACHER_PARAMS, TEACHER, prefix, WIDTH)


@pytest.mark.parametrize("student", ["regenerate", pytest.param("reuse", marks=pytest.mark.slow)])
def test_contextual_vectors_are_the_students_states_at_both_windows(student):
    settings = dataclasses.replace(WINDOWS, student=student)
    trajectories = tp.rollouts(1)
    params = windows.prepare(PARAMS, STUDENT), windows.prepare(TEACHER_PARAMS, TEACHER)
    own = windows.read(params[0], STUDENT, trajectories, WIDTH)
    theirs = windows.read(params[1], TEACHER, trajectories, WIDTH)
    starts = tp.probe(1)[1].starts
    opened = jax.jit(
        lambda own, other: windows.open_windows(
            (params[0], STUDENT, own), (params[1], TEACHER, other), trajectories, starts,
            jnp.arange(6), KEY, settings, CONTEXTUAL, (EOS,), VOCAB,
        ),
        compiler_options=tp.QUICK,
    )  # fmt: skip
    found, vectors = jax.device_get(opened(own.cache, theirs.cache))
    for b, w in zip(*np.nonzero(found.starts.valid_BxW), strict=True):
        prefix = np.asarray(trajectories.tokens_BxT[b, : found.starts.at_BxW[b, w]])
        for tokens, counts, embedded in (
            (found.student_BxWxK, found.student_counts_BxW, vectors[0]),
            (found.teacher_BxWxK, found.teacher_counts_BxW, vectors[1]),
        ):
            n = counts[b, w]
            text = [*prefix, *tokens[b, w, :n]]
            expected = tp.hidden(PARAMS, STUDENT, text)[len(prefix) :]
            np.testing.assert_allclose(embedded[b, w, :n], expected, rtol=2e-4, atol=2e-5)


def test_static_vectors_are_rows_of_the_students_table():
    trajectories, probe = tp.probe(0)
    table = np.asarray(PARAMS["embed"], np.float64)
    table /= np.linalg.norm(table, axis=-1, keepdims=True)
    contextual = tp.probe(0, WINDOWS, CONTEXTUAL)[1]
    for b, w, _, tokens in each_window(trajectories, probe):
        costs = 1 - table[tokens["student"]] @ table[tokens["teacher"]].T
        n, m = costs.shape
        plan = np.asarray(probe.plan_BxWxKxK[b, w], np.float64)
        assert float(probe.distance_BxW[b, w]) == pytest.approx(
            (plan[:n, :m] * costs).sum(), abs=1e-5
        )
        assert float(contextual.distance_BxW[b, w]) != float(probe.distance_BxW[b, w])


def test_reading_fills_a_cache_as_decoding_does():
    trajectories = tp.rollouts(0)
    params = windows.prepare(PARAMS, STUDENT)
    found = windows.read(params, STUDENT, trajectories, WIDTH)
    tokens, there = (
        trajectories.tokens_BxT[:, :-1],
        np.asarray(trajectories.source_BxT[:, :-1] != 0),
    )
    empty = init_cache(STUDENT, 6, tokens.shape[1] + 1 + WIDTH)
    hidden, cache = extend(params, STUDENT, tokens, jnp.zeros(6, jnp.int32), empty)
    assert found.cache.capacity == cache.capacity
    for ours, theirs in zip(
        jax.tree.leaves(found.cache), jax.tree.leaves(cache), strict=True
    ):  # [B, K, S, E]
        a, b = (
            np.moveaxis(np.asarray(x), 2, 1)[:, : there.shape[1]][there] for x in (ours, theirs)
        )
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(found.hidden_BxTxD)[there], np.asarray(hidden)[there], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_rows_with_much_padding_are_read_as_those_with_little():
    short = tp.rollouts(0)
    plain = tp.probe(0)[1]
    for extra in (60, 120, 250):
        padding = ((0, 0), (0, extra))
        wide = jax.tree.map(lambda x, p=padding: jnp.pad(x, p), short)
        wide = wide.replace(
            positions_BxT=jnp.broadcast_to(
                jnp.arange(wide.tokens_BxT.shape[1]), wide.tokens_BxT.shape
            )
        )
        found = tp.prober()(PARAMS, TEACHER_PARAMS, wide, jnp.arange(6), KEY)
        assert found.teacher_hidden_BxTxD.shape[1] == wide.tokens_BxT.shape[1] - 1
        for name in ("student_BxWxK", "teacher_BxWxK"):
            np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
        np.testing.assert_allclose(found.distance_BxW, plain.distance_BxW, atol=1e-5)
    # And with one long row among them, for which the whole width is needed.
    text = jnp.asarray(np.random.default_rng(0).integers(1, VOCAB, (1, wide.tokens_BxT.shape[1])))
    filled = wide.replace(
        tokens_BxT=wide.tokens_BxT.at[1].set(text[0]),
        source_BxT=wide.source_BxT.at[1].set(1),
        segment_ids_BxT=wide.segment_ids_BxT.at[1].set(1),
    )
    found = tp.prober()(PARAMS, TEACHER_PARAMS, filled, jnp.arange(6), KEY)
    np.testing.assert_array_equal(found.student_BxWxK, plain.student_BxWxK)
    np.testing.assert_allclose(found.distance_BxW, plain.distance_BxW, atol=1e-5)


def test_losses_of_candidates_are_those_of_the_text():
    trajectories, by_nll = tp.probe(0)
    capped = GuidanceSettings(objective="cap_low")
    divergent = dataclasses.replace(WINDOWS, candidates="divergence")
    by_divergence = tp.probe(0, divergent, TransportSettings(), capped)[1]
    chosen = set()
    for b in range(6):
        text = np.asarray(trajectories.tokens_BxT[b])
        log_p, log_q = (tp.log_probs(*model, text)[:-1] for model in MODELS.values())
        nll = -log_q[np.arange(len(log_q)), text[1:]]
        divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1)
        eligible = np.asarray(trajectories.divergence_weights_BxT[b, 1:]) != 0
        for probe, scores in ((by_nll, nll), (by_divergence, divergence)):
            valid = np.asarray(probe.starts.valid_BxW[b])
            at = np.asarray(probe.starts.at_BxW[b])[valid] - 1
            best = sorted(np.nonzero(eligible)[0], key=lambda t: -scores[t])[: valid.sum()]
            assert at.tolist() == best
            np.testing.assert_allclose(
                np.asarray(probe.losses_BxW[b])[valid], scores[at], rtol=1e-4, atol=1e-5
            )
        chosen.add(tuple(at) == tuple(np.asarray(by_nll.starts.at_BxW[b])[valid] - 1))
        found = by_divergence
        np.testing.assert_allclose(
            np.asarray(found.divergence_BxW[b])[valid], divergence[at], rtol=1e-4, atol=1e-5
        )
        median = np.median(divergence[eligible]) if eligible.any() else 0.0
        assert float(found.median_B[b]) == pytest.approx(median, rel=1e-4)
    assert chosen == {True, False}


def test_low_windows_are_opened_in_the_first_rows_and_only_where_they_are_compared():
    probe = tp.probe(0)[1]
    assert probe.low_distance_Rx1.shape == (4, 1)
    assert np.asarray(probe.low_valid_Rx1[:, 0]).tolist() == [True, False, True, True]
    every = tp.probe(0, dataclasses.replace(WINDOWS, low_rows=0))[1]
    np.testing.assert_allclose(every.low_distance_Rx1[:4], probe.low_distance_Rx1, atol=1e-6)
    assert every.low_distance_Rx1.shape == (6, 1)
    none = tp.probe(0, WINDOWS, TransportSettings(), GuidanceSettings(rule="loss"))[1]
    assert none.low_distance_Rx1 is None and none.low_valid_Rx1 is None
    np.testing.assert_array_equal(none.distance_BxW, probe.distance_BxW)


def test_nothing_of_a_probe_has_a_gradient():
    trajectories = tp.rollouts(0)
    ids = jnp.arange(6)

    def total(params, teacher_params):
        settings = WINDOWS, CONTEXTUAL, GuidanceSettings(objective="cap_low")
        probe = tp.plain_prober(*settings)(params, teacher_params, trajectories, ids, KEY)
        return sum(
            jnp.sum(x) for x in jax.tree.leaves(probe) if jnp.issubdtype(x.dtype, jnp.floating)
        )

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)), compiler_options=tp.QUICK)
    for slope in jax.tree.leaves(gradient(PARAMS, TEACHER_PARAMS)):
        assert not np.any(slope)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": 0}, r"windows\.tokens=0 must be at least 1"),
        ({"per_rollout": 0}, r"windows\.per_rollout=0"),
        ({"candidates": "loss"}, r"windows\.candidates='loss'"),
        ({"share": 0.0}, r"windows\.share=0\.0 must lie in \(0, 1\]"),
        ({"student": "keep"}, r"windows\.student='keep'"),
        ({"temperature": -0.5}, r"windows\.temperature=-0\.5"),
        ({"low_rows": -1}, r"windows\.low_rows=-1"),
        ({"low_quantile": 0.0}, r"windows\.low_quantile=0\.0"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        WindowSettings(**fields)


def test_windows_that_could_not_end_are_refused():
    settings = WINDOWS, TransportSettings(), GuidanceSettings(), tp.SIGNAL
    with pytest.raises(ValueError, match="eos_ids is empty"):
        make_probe(STUDENT, TEACHER, *settings, ())
