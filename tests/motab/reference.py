"""Algorithm 1 of MOTAB in plain Python: one row, token by token, no cache.

Written from the paper's equations and independent of the package, but for two things it must
share to be comparable: the models' full forward pass, and which noise belongs to which token.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import numpy as np

import models
from distill.roles import Role, role_key


@dataclasses.dataclass
class Step:
    tokens: list[int]
    start: int  # response position
    value: float
    boundary: float
    delimited: bool


@dataclasses.dataclass
class Row:
    steps: list[Step]
    student: list[int]
    breach: int
    root: int
    dropped: bool
    truncated: bool
    response: list[int]
    sources: list[str]
    weights: list[float]
    margin: (
        float  # smallest gap that decided anything: two best perturbed logits, V and gamma, deltas
    )


@functools.partial(jax.jit, static_argnums=1)
def _logits(params, config, tokens):
    return models.forward(params, config, tokens)[0]


class Model:
    def __init__(self, params, config, vocab, width):
        self.params, self.config, self.vocab, self.width = params, config, vocab, width

    def logits(self, context: list[int]) -> np.ndarray:
        """Next-token logits behind a context, float64."""
        tokens = np.zeros((1, self.width), np.int32)
        tokens[0, : len(context)] = context
        out = _logits(self.params, self.config, tokens)
        return np.asarray(out, np.float64)[len(context) - 1, : self.vocab]


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def kl(log_a, log_b):
    return float(np.sum(np.exp(log_a) * (log_a - log_b)))


def cost(signal, q, p, token):
    if signal == "likelihood":
        return -q[token]
    if signal == "reverse_kl":
        return kl(p, q)
    if signal == "forward_kl":
        return kl(q, p)
    m = np.log(0.5 * np.exp(p) + 0.5 * np.exp(q))
    return 0.5 * kl(q, m) + 0.5 * kl(p, m)


def draw(model, logits, temperature, key, position):
    """A token and by how much it won. The noise vector is as long as the model's head is wide."""
    if temperature == 0:
        scores = logits
    else:
        noise = jax.random.gumbel(jax.random.fold_in(key, position), (model.config.vocab_size,))
        scores = logits / temperature + np.asarray(noise, np.float64)[: len(logits)]
    order = np.sort(scores)
    return int(np.argmax(scores)), float(order[-1] - order[-2])


def value(tokens, costs, token_bytes, delimiter, delimited):
    """Geometric mean over the step's tokens, without those that lie within the delimiter."""
    text = b"".join(token_bytes[t] for t in tokens)
    counted = list(range(len(tokens)))
    if delimited:
        last_start = len(text) - len(token_bytes[tokens[-1]])
        end = next(
            e for e in range(len(text) + 1)
            if e > last_start and e >= len(delimiter) and text[:e].endswith(delimiter)
        )  # fmt: skip
        position, counted = 0, []
        for i, t in enumerate(tokens):
            stop = position + len(token_bytes[t])
            inside = position >= end - len(delimiter) and stop <= end and stop > position
            if not inside:
                counted.append(i)
            position = stop
        counted = counted or list(range(len(tokens)))
    return math.exp(-sum(costs[i] for i in counted) / len(counted))


def rollout(
    student: Model, teacher: Model, prompt, sample_id, key, settings, gamma_0,
    token_bytes, delimiter_ids, revision_ids, eos_ids,
) -> Row:  # fmt: skip
    s = settings
    delimiter = s.delimiter.encode()
    token_bytes = [text or b"\0" for text in token_bytes]  # no delimiter reaches across these
    student_key = jax.random.fold_in(role_key(key, Role.STUDENT, 0), sample_id)
    teacher_key = jax.random.fold_in(role_key(key, Role.TEACHER, 1), sample_id)
    response: list[int] = []
    steps: list[Step] = []
    margin = math.inf
    breach = root = -1
    truncated = False
    ended = False
    while not ended and breach < 0:
        tokens, costs, entropy, delimited = [], [], 0.0, False
        while True:  # one step of the student's, judged token by token
            context = list(prompt) + response
            raw = student.logits(context)
            token, gap = draw(student, raw, s.student_temperature, student_key, len(response))
            margin = min(margin, gap)
            q, p = log_softmax(teacher.logits(context)), log_softmax(raw)
            if not tokens:
                top = np.sort(q)[::-1][: s.entropy_top_k]
                top = log_softmax(top)
                entropy = float(-np.sum(np.exp(top) * top))
            tokens.append(token)
            costs.append(cost(s.signal, q, p, token))
            response.append(token)
            text = b"".join(token_bytes[t] for t in tokens)
            delimited = delimiter in text
            ended = token in eos_ids or len(response) >= s.max_total
            if ended or delimited or len(tokens) >= s.max_step_tokens:
                break
        if ended and token not in eos_ids:
            truncated = True
        if tokens == [token] and token in eos_ids:
            break  # an empty step
        v = value(tokens, costs, token_bytes, delimiter, delimited)
        h = 0.0 if s.boundary == "static" else entropy
        gamma = gamma_0 * math.exp(-s.alpha * h)
        margin = min(margin, abs(v - gamma)) if gamma_0 > 0 else margin
        steps.append(Step(tokens, len(response) - len(tokens), v, gamma, delimited))
        if v < gamma:
            breach = len(steps) - 1

    student_tokens = list(response)
    if breach < 0:
        weight = 0.0 if s.loss_on == "correction" else 1.0
        return Row(
            steps, student_tokens, -1, -1, False, truncated, student_tokens,
            ["student"] * len(response), [weight] * len(response), margin,
        )  # fmt: skip

    truncated = False
    if s.correction == "rewrite" or breach == 0:
        root = breach
    else:
        deltas = {
            k: steps[k].value - steps[k - 1].value
            for k in range(1, breach + 1)
            if steps[k - 1].value >= steps[k - 1].boundary
        }
        root = min(deltas, key=lambda k: (deltas[k], k))
        others = sorted(deltas.values())
        if len(others) > 1:
            margin = min(margin, others[1] - others[0])

    kept = list(student_tokens)
    if kept[-1] in eos_ids:
        kept.pop()
    inserted = ([] if steps[breach].delimited else list(delimiter_ids)) + list(revision_ids)
    safe = student_tokens[: steps[root].start]
    head = kept + inserted if s.stitch else safe
    room = min(s.max_total - len(head), s.max_correction)
    owner = [index for index, step in enumerate(steps) for _ in step.tokens]

    if room < s.min_correction:
        return Row(
            steps, student_tokens, breach, root, True, False, student_tokens,
            ["student"] * len(student_tokens), [0.0] * len(student_tokens), margin,
        )  # fmt: skip

    suffix: list[int] = []
    while len(suffix) < room and not (suffix and suffix[-1] in eos_ids):
        context = list(prompt) + safe + suffix
        token, gap = draw(
            teacher,
            teacher.logits(context),
            s.teacher_temperature,
            teacher_key,
            len(safe) + len(suffix),
        )
        margin = min(margin, gap)
        suffix.append(token)
    truncated = suffix[-1] not in eos_ids

    if s.stitch:
        sources = ["flawed" if owner[i] >= root else "student" for i in range(len(kept))]
        weights = {
            "eq11": [float(owner[i] < breach) for i in range(len(kept))],
            "response": [1.0] * len(kept),
            "correction": [0.0] * len(kept),
            "before_root": [float(owner[i] < root) for i in range(len(kept))],
        }[s.loss_on]
        sources += ["revision"] * len(inserted)
        weights += [1.0] * len(inserted)
    else:
        sources = ["student"] * len(safe)
        weights = [0.0 if s.loss_on == "correction" else 1.0] * len(safe)
    return Row(
        steps, student_tokens, breach, root, False, truncated, head + suffix,
        sources + ["teacher"] * len(suffix), weights + [1.0] * len(suffix), margin,
    )  # fmt: skip
