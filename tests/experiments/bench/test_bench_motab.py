"""The literal loop of `experiments.bench` writes what MOTAB's rollout writes, and so do its parts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import models
from distill.roles import Role
from distill.trajectories import Source
from experiments.bench.ours.motab.literal import _Loop
from experiments.bench.ours.motab.parts import _lengths, _Parts
from experiments.bench.ours.motab.setup import make_setup
from experiments.bench.peers.bench_protocol import Session
from experiments.bench.workloads import MODELS, request


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Setup, and of every batch of two: prompts, trajectories and record on the host."""
    scratch = tmp_path_factory.mktemp("bench")
    config = MODELS["micro"]
    for number, role in enumerate(("student", "teacher")):
        params = models.init(jax.random.key(number), config)
        models.save_pretrained(params, config, scratch / role)
    message = request("motab", "", "micro", scratch / "student", scratch / "teacher", 128)
    setup = make_setup(Session({**message, "scratch": str(scratch)}, None))
    rollout = setup.rollout()
    return setup, [(batch, jax.device_get(rollout(*batch))) for batch in setup.batches(2)]


@pytest.mark.slow
def test_half_of_the_texts_are_unsafe(written):
    _, batches = written
    breached = np.concatenate([record.breach_B >= 0 for _, (_, record) in batches])
    assert 0.25 <= breached.mean() <= 0.75


@pytest.mark.slow
def test_literal_loop_writes_the_same_texts(written):
    setup, batches = written
    loop = _Loop(setup)
    for batch, (trajectories, record) in batches:
        _, text, lengths = loop.run(*batch)
        work = _lengths(setup, batch, setup_rollout(trajectories, record))
        np.testing.assert_array_equal(lengths - batch[1], work["student"])
        by_student = np.isin(
            trajectories.source_BxT, (Source.PROMPT, Source.STUDENT, Source.FLAWED)
        )
        np.testing.assert_array_equal(
            np.where(by_student, text, 0), np.where(by_student, trajectories.tokens_BxT, 0)
        )


@pytest.mark.slow
def test_parts_write_the_same_texts(written):
    setup, batches = written
    student = _Parts(setup, Role.STUDENT)
    for batch, (trajectories, record) in batches:
        work = _lengths(setup, batch, setup_rollout(trajectories, record))
        text = np.asarray(student.rollout(batch, work["student"]))
        by_student = np.isin(
            trajectories.source_BxT, (Source.PROMPT, Source.STUDENT, Source.FLAWED)
        )
        np.testing.assert_array_equal(
            np.where(by_student, text, 0), np.where(by_student, trajectories.tokens_BxT, 0)
        )


def setup_rollout(trajectories, record):
    """A rollout that has already been run."""
    return lambda *_: (trajectories, record)
