"""Tiny rollouts, and what plain generation and a row alone say of their near futures."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import models
from distill.losses.signal import Signal
from distill.losses.trajectory_loss import trajectory_loss
from distill.rollouts.assembly import assemble
from distill.trajectories import Source, Trajectories
from topd import (
    GuidanceSettings,
    TransportSettings,
    WindowSettings,
    guided_loss,
    make_probe,
)

from ..motab import tiny

EOS, VOCAB = tiny.EOS, len(tiny.TOKENS)
PROMPT, RESPONSE, WIDTH = 4, 9, 5
STUDENT = tiny.config(layers=1)
TEACHER = tiny.config(hidden=24, layers=1, vocab=VOCAB + 3)
PARAMS, TEACHER_PARAMS = tiny.params(STUDENT, 1), tiny.params(TEACHER, 2)
SIGNAL = Signal()
KEY = jax.random.key(7)
# For programs that run a few times: half the time to compile.
QUICK = {"xla_backend_optimization_level": 0}
# Responses of every kind: full, empty, one token.
RESPONSES = (RESPONSE, 0, 6, 1, RESPONSE, 4)
WINDOWS = WindowSettings(tokens=WIDTH, per_rollout=3, share=0.4, low_rows=4)


def rollouts(seed: int, rows: int = len(RESPONSES)) -> Trajectories:
    rng = np.random.default_rng(seed)
    prompts = rng.integers(1, PROMPT + 1, rows)
    text = rng.integers(1, VOCAB, (rows, PROMPT + RESPONSE))
    return assemble(
        jnp.asarray(text), jnp.full(text.shape, Source.STUDENT), jnp.asarray(prompts),
        jnp.asarray(prompts + np.array(RESPONSES[:rows])), "divergence",
    )  # fmt: skip


def plain_prober(
    windows: WindowSettings = WINDOWS,
    transport: TransportSettings = TransportSettings(),  # noqa: B008 - frozen
    guidance: GuidanceSettings = GuidanceSettings(),  # noqa: B008
    signal: Signal = SIGNAL,
):
    return make_probe(STUDENT, TEACHER, windows, transport, guidance, signal, (EOS,), VOCAB)


@functools.cache
def prober(*settings):
    return jax.jit(plain_prober(*settings), compiler_options=QUICK)


@functools.cache
def guided(settings: GuidanceSettings, signal: Signal = SIGNAL, shares=(1.0, 1.0)):
    """(params, trajectories, probe, guided windows) to ((loss, sums), gradient)."""

    def objective(params, trajectories, probe, guided):
        sums = guided_loss(
            params, STUDENT, TEACHER_PARAMS, TEACHER, trajectories, probe, guided, signal, settings,
            shares,
        )  # fmt: skip
        return sums.mean, sums

    return jax.jit(jax.value_and_grad(objective, has_aux=True), compiler_options=QUICK)


@functools.cache
def opd(signal: Signal = SIGNAL):
    """(params, trajectories) to ((sum, mean), gradient of the sum) of `trajectory_loss`."""

    def objective(params, trajectories):
        sums = trajectory_loss(params, STUDENT, trajectories, TEACHER_PARAMS, TEACHER, signal)
        return sums.total, sums.mean

    return jax.jit(jax.value_and_grad(objective, has_aux=True), compiler_options=QUICK)


def probe(seed: int, *settings, rows: int = len(RESPONSES)):
    """Rollouts and their probe."""
    trajectories = rollouts(seed, rows)
    found = prober(*settings)(PARAMS, TEACHER_PARAMS, trajectories, jnp.arange(rows), KEY)
    return trajectories, found


@functools.cache
def _forward(config: models.ModelConfig):
    return jax.jit(
        lambda params, tokens: models.forward_hidden(params, config, tokens), compiler_options=QUICK
    )


def hidden(params, config, tokens) -> np.ndarray:
    """States [T, D] of one text."""
    # Padded: causality hides it.
    row = np.zeros((1, 32), np.int32)
    row[0, : len(tokens)] = tokens
    return np.asarray(_forward(config)(params, row)[0, : len(tokens)], np.float64)


def log_probs(params, config, tokens) -> np.ndarray:
    """Of the next token after each of `tokens` [T, V], over the ids that both models have."""
    head = np.asarray(params["head"], np.float64)
    z = (hidden(params, config, tokens) @ head.T)[:, :VOCAB]
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def greedy(params, config, prefix, width: int) -> list[int]:
    """A continuation, token by token, each from the whole text."""
    text = list(map(int, prefix))
    for _ in range(width):
        text.append(int(np.argmax(log_probs(params, config, text)[-1])))
        if text[-1] == EOS:
            break
    return text[len(prefix) :]
