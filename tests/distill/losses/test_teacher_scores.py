"""Kept teacher scores against running the teacher."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from distill.losses.signal import Signal
from distill.losses.teacher_scores import score_trajectories
from distill.losses.trajectory_loss import trajectory_loss
from distill.train.packing import pack
from distill.trajectories import Trajectories

from ..train.test_packing import STUDENT, TEACHER, apart

VOCAB = 13
SIGNALS = [
    *(Signal(name, support="top_k", top_k=k, top_k_of="teacher", jsd_beta=0.3)
      for name, k in (("reverse_kl", 4), ("forward_kl", 4), ("jsd", 4), ("forward_kl", 40))),
    Signal("reverse_kl", support="sampled", form="advantage"),
    Signal("reverse_kl", support="sampled", estimator="k2"),
    Signal("forward_kl", support="sampled", estimator="k3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return [models.init(jax.random.key(k), c) for k, c in ((1, STUDENT), (2, TEACHER))]


def with_scores(params, t: Trajectories, k: int) -> Trajectories:
    score = jax.jit(score_trajectories, static_argnums=(1, 3, 4))
    return t.replace(teacher_scores=score(params[1], TEACHER, t, k, VOCAB))


def value_and_grad(params, t, signal, teacher):
    def loss(student):
        sums = trajectory_loss(student, STUDENT, t, *teacher, signal)
        return sums.mean, sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params[0])


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize(
    "signal",
    [
        signal
        if signal in (SIGNALS[0], SIGNALS[-1])
        else pytest.param(signal, marks=pytest.mark.slow)
        for signal in SIGNALS
    ],
)
def test_losses_and_gradients_are_those_of_the_teacher_itself(params, signal):
    t = apart(5)
    with jax.default_matmul_precision("highest"):
        expected = value_and_grad(params, t, signal, (params[1], TEACHER))
        kept = value_and_grad(params, with_scores(params, t, signal.top_k), signal, (None, TEACHER))
    close(kept, expected)
    assert float(expected[0][1].divergence) > 0.05


def test_scores_are_the_teachers_distribution(params):
    t = with_scores(params, apart(6), 3)
    logits = models.forward(params[1], TEACHER, t.tokens_BxT, t.positions_BxT, t.segment_ids_BxT)
    q = np.asarray(jax.nn.softmax(logits[..., :VOCAB].astype(jnp.float32)), np.float64)
    s = t.teacher_scores
    for b, row in enumerate(np.asarray(t.segment_ids_BxT)):
        for at in range(1, row.sum()):
            before = q[b, at - 1]
            best = np.argsort(-before, kind="stable")[:3]
            assert s.ids_BxTxK[b, at].tolist() == best.tolist()
            np.testing.assert_allclose(np.exp(s.log_probs_BxTxK[b, at]), before[best], rtol=1e-5)
            rest = before.sum() - before[best].sum()
            np.testing.assert_allclose(np.exp(s.tail_BxT[b, at]), rest, rtol=1e-5)
            token = before[t.tokens_BxT[b, at]]
            np.testing.assert_allclose(np.exp(s.sampled_BxT[b, at]), token, rtol=1e-5)
    assert not any(np.asarray(x)[:, 0].any() for x in jax.tree.leaves(s))


def test_packed_rows_keep_their_scores(params):
    signal = SIGNALS[1]
    t = with_scores(params, apart(7), signal.top_k)
    with jax.default_matmul_precision("highest"):
        expected = value_and_grad(params, t, signal, (None, TEACHER))
        close(value_and_grad(params, pack(t, 20), signal, (None, TEACHER)), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"support": "full"}, r"signal\.support='full' with kept teacher scores"),
        ({"top_k_of": "student"}, r"signal\.top_k_of='student' with kept teacher scores"),
        ({"top_k_of": "union"}, r"signal\.top_k_of='union' with kept teacher scores"),
        ({"top_k": 5}, r"signal\.top_k=5, but the kept teacher scores hold 4 tokens"),
    ],
)
def test_what_the_scores_do_not_hold_is_refused(params, fields, message):
    t = with_scores(params, apart(9), 4)
    signal = dataclasses.replace(SIGNALS[0], **fields)
    with pytest.raises(ValueError, match=message):
        trajectory_loss(params[0], STUDENT, t, None, TEACHER, signal)
