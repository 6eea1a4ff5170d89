"""The jitted rollout against Algorithm 1 written out in plain Python."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import motab
from distill.trajectories import Source

from . import reference, tiny

BASE = motab.MotabSettings(
    student_temperature=1.0,
    teacher_temperature=1.0,
    max_step_tokens=9,
    max_total=40,
    max_correction=24,
    min_correction=4,
    chunk=7,
)
VARIANTS = {
    "paper": {},
    "response": {"loss_on": "response", "chunk": 40},
    "correction": {"loss_on": "correction", "chunk": 1},
    "before_root": {"loss_on": "before_root", "max_step_tokens": 3},
    "rewrite": {"correction": "rewrite", "max_total": 30, "min_correction": 8},
    "no_stitch": {"stitch": False},
    "static": {"boundary": "static", "max_correction": 6},
    "reverse_kl": {"signal": "reverse_kl"},
    "forward_kl": {"signal": "forward_kl", "entropy_top_k": 3, "alpha": 2.0},
    "jsd": {"signal": "jsd", "teacher_temperature": 0.6, "student_temperature": 0.6},
    "greedy": {"student_temperature": 0.0, "teacher_temperature": 0.0},
    # No text ends by itself, breaches come late: caches grow, and a correction may start right
    # where one has to.
    "long": {"max_total": 90, "max_correction": 80, "chunk": 26, "loss_on": "response"},
}  # fmt: skip
# Those that differ little from others.
AT_NIGHT = (
    "long",
    "no_stitch",
    "static",
    "reverse_kl",
    "rewrite",
    "response",
    "correction",
    "before_root",
    "forward_kl",
    "jsd",
    "greedy",
)
SOURCES = {
    "student": Source.STUDENT,
    "flawed": Source.FLAWED,
    "revision": Source.REVISION,
    "teacher": Source.TEACHER,
}
SEEDS = 14
PROBE = 1e-6  # a gamma_0 too small to breach
ROWS = 2


def with_gamma(settings: motab.MotabSettings, gamma_0) -> motab.MotabSettings:
    """Settings whose gamma_0 may be traced, so that one compilation serves many values."""
    copy = dataclasses.replace(settings)
    object.__setattr__(copy, "gamma_0", gamma_0)
    return copy


@functools.cache
def jitted(settings: motab.MotabSettings, eos: int):
    @jax.jit
    def run(student, teacher, prompts, lengths, ids, key, gamma_0):
        rollout = motab.make_rollout(
            tiny.STUDENT, tiny.TEACHER, with_gamma(settings, gamma_0), tiny.TABLE,
            tiny.DELIMITER_IDS, tiny.REVISION_IDS, (eos,),
        )  # fmt: skip
        return rollout(student, teacher, prompts, lengths, ids, key)

    return run


def choose_gamma(rng: np.random.Generator, record: motab.Record, spread: float) -> float:
    """Never, always, or where a random one of the steps of an unmonitored rollout would breach."""
    kind = rng.choice(["never", "always", "step"], p=[0.1, 0.1, 0.8])
    if kind != "step":
        return {"never": 0.0, "always": 1e6}[kind]
    judged = np.arange(record.values_BxL.shape[1]) < np.asarray(record.num_steps_B)[:, None]
    ratios = np.sort(np.asarray(record.values_BxL / record.boundaries_BxL)[judged]) * PROBE
    return float(ratios[int(len(ratios) * rng.uniform(0, spread))] * 1.05)


def compare(row: reference.Row, trajectory, record, b: int, prompt_length: int) -> None:
    """Everything the reference knows of a row, against row b of the package's."""
    assert int(record.breach_B[b]) == row.breach
    assert int(record.root_B[b]) == row.root
    assert bool(record.dropped_B[b]) == row.dropped
    assert bool(record.truncated_B[b]) == row.truncated
    assert int(record.num_steps_B[b]) == len(row.steps)
    np.testing.assert_allclose(
        record.values_BxL[b, : len(row.steps)], [s.value for s in row.steps], rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        record.boundaries_BxL[b, : len(row.steps)],
        [s.boundary for s in row.steps],
        rtol=1e-5,
        atol=1e-4,
    )
    span = slice(prompt_length, prompt_length + len(row.response))
    assert trajectory.tokens_BxT[b, span].tolist() == row.response
    assert trajectory.source_BxT[b, span].tolist() == [SOURCES[s] for s in row.sources]
    assert trajectory.likelihood_weights_BxT[b, span].tolist() == row.weights
    assert not np.any(trajectory.source_BxT[b, span.stop :])
    assert not np.any(trajectory.likelihood_weights_BxT[b, span.stop :])
    assert not np.any(trajectory.likelihood_weights_BxT[b, :prompt_length])


def edges(row: reference.Row, settings: motab.MotabSettings, eos: int):
    """The names of the edge cases that a row went through."""
    if len(row.student) % settings.chunk and row.student[-1] == eos:
        yield "eos inside a chunk"
    if row.breach >= 0 and row.student[-1] == eos:
        yield "eos taken out"
    for step in row.steps:
        if step.delimited and all(b".\n\n" not in tiny.TOKENS[t] for t in step.tokens):
            yield "delimiter across tokens"
        if step.delimited and not tiny.TOKENS[step.tokens[-1]].endswith(b"\n\n"):
            yield "delimiter spills over"
        if not step.delimited and len(step.tokens) == settings.max_step_tokens:
            yield "step at its budget"
    if row.truncated:
        yield "text at its budget" if row.breach < 0 else "correction at its budget"
    if row.breach < 0 and sum(len(s.tokens) for s in row.steps) < len(row.student):
        yield "eos alone"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in AT_NIGHT else ()) for name in VARIANTS],
)
def test_rollout_equals_algorithm_1(name):
    """Hundreds of random models, prompts and gammas; a difference must be a near-tie."""
    settings = dataclasses.replace(BASE, **VARIANTS[name])
    vocab = len(tiny.TOKENS)
    eos, spread = (99, 0.05) if name == "long" else (tiny.EOS, 0.5)
    seen = {"breach": 0, "first": 0, "safe": 0, "dropped": 0, "deep": 0, "tokens": 0, "ties": 0}
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, len(name)])
        student = tiny.params(tiny.STUDENT, 2 * seed, rng.uniform(1, 4))
        teacher = tiny.params(tiny.TEACHER, 2 * seed + 1, rng.uniform(0.3, 2))
        gamma_0 = float(
            rng.choice([0.0, 0.03, 0.06, 0.09, 0.13, 0.9], p=[0.07, 0.2, 0.3, 0.2, 0.15, 0.08])
        )
        prompts, lengths = tiny.prompts(seed, ROWS)
        ids = jnp.asarray(rng.integers(0, 10_000, ROWS), jnp.int32)
        key = jax.random.key(seed)
        inputs = (student, teacher, prompts, lengths, ids, key)
        gamma_0 = choose_gamma(rng, jitted(settings, eos)(*inputs, jnp.float32(PROBE))[1], spread)
        trajectory, record = jax.device_get(jitted(settings, eos)(*inputs, jnp.float32(gamma_0)))
        width = prompts.shape[1] + settings.max_total
        models = (
            reference.Model(student, tiny.STUDENT, vocab, width),
            reference.Model(teacher, tiny.TEACHER, vocab, width),
        )
        for b in range(ROWS):
            row = reference.rollout(
                *models, prompts[b, : int(lengths[b])].tolist(), int(ids[b]), key, settings, gamma_0,
                tiny.TOKENS, tiny.DELIMITER_IDS, tiny.REVISION_IDS, (eos,),
            )  # fmt: skip
            seen["tokens"] += len(row.student)
            if row.margin < 1e-4:
                seen["ties"] += 1
                continue
            compare(row, trajectory, record, b, int(lengths[b]))
            seen["breach"] += row.breach >= 0
            seen["first"] += row.breach == 0
            seen["safe"] += row.breach < 0
            seen["deep"] += row.breach > row.root >= 0
            seen["dropped"] += row.dropped
            for edge in edges(row, settings, eos):
                seen[edge] = seen.get(edge, 0) + 1
    assert seen["breach"] > 3 and seen["safe"] > 1, seen
    assert name == "long" or seen["first"] > 0, seen
    assert name in ("rewrite", "greedy") or seen["deep"] > 0, seen
    assert seen["ties"] <= 2, seen
    assert seen.keys() >= {"delimiter across tokens", "delimiter spills over"}, seen
    if name in ("paper", "response", "static", "reverse_kl"):
        assert seen.keys() >= {
            "eos inside a chunk", "eos alone", "eos taken out", "step at its budget",
            "correction at its budget",
        }, seen  # fmt: skip


def test_value_is_a_geometric_mean_without_the_delimiter():
    """By hand: tokens a, b, '.', newline, newline with probabilities .5, .25 and anything."""
    costs = [math.log(2), math.log(4), 7.0, 7.0, 7.0]
    got = reference.value([1, 2, 3, 4, 4], costs, tiny.TOKENS, b".\n\n", True)
    assert got == pytest.approx(math.sqrt(0.125))
