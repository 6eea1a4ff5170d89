"""Tiny batches with references, and what a row alone says of them in NumPy float64."""

from __future__ import annotations

import dataclasses
import functools
import random
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

import models
from atesd import ExposedBatch, ReferenceWidths, pack_references
from atesd.references import ReferenceTokens
from distill.rollouts.assembly import assemble
from distill.trajectories import Source

from ..motab import tiny

EOS, VOCAB = tiny.EOS, len(tiny.TOKENS)
PROMPT, RESPONSE = 4, 6
# At most 16, so that every batch has these widths.
WIDTHS = ReferenceWidths(head=3, reasoning=10, answer=2, tail=2)
CONTEXT = 3 + 10 + 2 + 2
STUDENT = tiny.config(layers=1)
TEACHER = tiny.config(hidden=24, layers=1, vocab=VOCAB + 3)
# For programs that run a few times: half the time to compile.
QUICK = {"xla_backend_optimization_level": 0}
# Responses and reasonings of every kind: none, one token, the most there is room for.
RESPONSES = (RESPONSE, 0, 3, 5, RESPONSE, 1)
REASONINGS = (10, 7, 0, 10, 3, 1)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row as lists."""

    prompt: list[int]
    response: list[int]
    reference: ReferenceTokens

    def context(self, exposure: str) -> list[int]:
        """What the teacher reads at an exposure given as decimal text."""
        r = self.reference
        cut = r.cuts[int(Fraction(exposure) * len(r.reasoning))]
        return [*r.head, *r.reasoning[:cut], *r.answer, *r.tail]

    @property
    def whole_reference(self) -> list[int]:
        return [*self.reference.reasoning, *self.reference.answer, EOS]


def rows(seed: int, count: int = len(RESPONSES)) -> list[Row]:
    rng = random.Random(seed)

    def ids(n: int) -> list[int]:
        return [rng.randrange(1, VOCAB) for _ in range(n)]

    out = []
    for b in range(count):
        n = REASONINGS[b]
        # Every other row may be cut at odd places only.
        cuts = [c if b % 2 or c in (0, n) or c % 2 else c - 1 for c in range(n + 1)]
        reference = ReferenceTokens(
            tuple(ids(1 + b % 3)), tuple(ids(n)), tuple(ids(1 + b % 2)), tuple(ids(2 - b % 2)),
            tuple(cuts), True, n == 0, False,
        )  # fmt: skip
        out.append(Row(ids(1 + (b + seed) % PROMPT), ids(RESPONSES[b]), reference))
    return out


def pack(rows: list[Row]) -> ExposedBatch:
    text = np.zeros((len(rows), PROMPT + RESPONSE), np.int32)
    for line, row in zip(text, rows, strict=True):
        both = [*row.prompt, *row.response]
        line[: len(both)] = both
    prompts = np.array([len(row.prompt) for row in rows])
    trajectories = assemble(
        jnp.asarray(text),
        jnp.full(text.shape, Source.STUDENT),
        jnp.asarray(prompts),
        jnp.asarray(prompts + [len(row.response) for row in rows]),
        "divergence",
    )
    return ExposedBatch(trajectories, pack_references([row.reference for row in rows], WIDTHS))


def batch(seed: int, count: int = len(RESPONSES)) -> ExposedBatch:
    return pack(rows(seed, count))


@functools.cache
def _forward(config: models.ModelConfig):
    return jax.jit(
        lambda params, tokens: models.forward(params, config, tokens), compiler_options=QUICK
    )


def logits(params, config, context: list[int], response: list[int]) -> np.ndarray:
    """What predicts every token of a response behind a context, [R, V], the row alone."""
    tokens = np.array([[*context, *response]], np.int32)
    out = np.asarray(_forward(config)(params, tokens)[0], np.float64)
    return out[len(context) - 1 : -1]


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def summands(name: str, q_logits: np.ndarray, p_logits: np.ndarray, beta: float) -> np.ndarray:
    """Of the divergence between teacher q and student p, by vocabulary entry."""
    log_q, log_p = log_softmax(q_logits), log_softmax(p_logits)
    q, p = np.exp(log_q), np.exp(log_p)
    if name == "forward_kl":
        return q * (log_q - log_p)
    if name == "reverse_kl":
        return p * (log_p - log_q)
    log_m = np.log(beta * q + (1 - beta) * p)
    return beta * q * (log_q - log_m) + (1 - beta) * p * (log_p - log_m)


def clipped(settings, q_logits: np.ndarray, p_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss at every position, and whether something was capped."""
    t = settings.temperature
    each = summands(settings.divergence, q_logits / t, p_logits / t, settings.jsd_beta)
    if settings.clip == "none":
        return each.sum(-1), np.zeros(each.shape[:-1], bool)
    if settings.clip == "token":
        return np.minimum(each.sum(-1), settings.clip_at), each.sum(-1) > settings.clip_at
    return np.minimum(each, settings.clip_at).sum(-1), (each > settings.clip_at).any(-1)


def mean_log_prob(params, config, context: list[int], response: list[int]) -> float:
    log_probs = log_softmax(logits(params, config, context, response))
    return float(np.mean(log_probs[np.arange(len(response)), response]))


def confidence(params, config, row: Row) -> float:
    if not row.response:
        return 0.0
    probs = np.exp(log_softmax(logits(params, config, row.prompt, row.response)))
    return float(np.mean(probs[np.arange(len(row.response)), row.response]))


def row_scores(student, student_config, teacher, teacher_config, row: Row, exposure: str, settings):
    """A row's loss, mismatch, clipped share, disagreement; zeros without a response."""
    if not row.response:
        return dict.fromkeys(("loss", "mismatch", "clipped", "disagreement"), 0.0)
    p = logits(student, student_config, row.prompt, row.response)[:, :VOCAB]
    q = logits(teacher, teacher_config, row.context(exposure), row.response)[:, :VOCAB]
    loss, capped = clipped(settings, q, p)
    return {
        "loss": loss.mean(),
        "mismatch": summands("forward_kl", q, p, 0.5).sum(-1).mean(),
        "clipped": capped.mean(),
        "disagreement": (q.argmax(-1) != p.argmax(-1)).mean(),
    }
