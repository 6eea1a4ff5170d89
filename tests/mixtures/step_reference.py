"""ImitKD and SKD in plain Python: one row, token by token, no cache, no chunk.

Shares with the package the models' full forward pass and which noise belongs to which token, and
with MOTAB's reference how a token is drawn and what a step is worth.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from distill.roles import Role, role_key

from ..motab.reference import Model, draw, log_softmax, value


@dataclasses.dataclass
class Row:
    response: list[int]
    writers: list[str]
    steps: list[int]  # step index of each token
    student_steps: int = 0
    teacher_steps: int = 0
    rejected: int = 0
    truncated: bool = False
    empty: bool = False  # it ends with an end of sequence on its own
    at_budget: int = 0  # steps that ended at their budget
    across: int = 0  # steps whose delimiter lies in several tokens
    shorter: int = 0  # rewritten steps shorter than what was rejected
    margin: float = math.inf  # smallest gap that decided anything


def rollout(
    student: Model, teacher: Model, prompt, sample_id, key, settings, max_step_tokens, token_bytes,
    delimiter, eos_ids, *, p=None, beta=None,
) -> Row:  # fmt: skip
    """ImitKD where `p` is given, SKD where `beta` is."""
    s = settings
    token_bytes = [text or b"\0" for text in token_bytes]  # no delimiter reaches across these
    delimiter = delimiter.encode()
    models = {"student": student, "teacher": teacher}
    temperatures = {"student": s.student_temperature, "teacher": s.teacher_temperature}
    coin_key = jax.random.fold_in(role_key(key, Role.STEP_COIN, 0), sample_id)
    row = Row([], [], [])

    def write_step(writer: str):
        """One step behind the response: tokens, log-probabilities of both, how it ended."""
        role, attempt = Role.TEACHER, 0
        if writer == "student":
            role, attempt = Role.STUDENT, row.rejected
        noise_key = jax.random.fold_in(role_key(key, role, attempt), sample_id)
        tokens, log_probs = [], {"student": [], "teacher": []}
        while True:
            context = list(prompt) + row.response + tokens
            logits = {
                name: model.logits(context)
                for name, model in models.items()
                if name == writer or (beta is not None and writer == "student")
            }
            token, gap = draw(
                models[writer], logits[writer], temperatures[writer], noise_key,
                len(row.response) + len(tokens),
            )  # fmt: skip
            row.margin = min(row.margin, gap)
            tokens.append(token)
            for name, x in logits.items():
                log_probs[name].append(log_softmax(x)[token])
            delimited = delimiter in b"".join(token_bytes[t] for t in tokens)
            ended = token in eos_ids or len(row.response) + len(tokens) >= s.max_total
            if ended or delimited or len(tokens) >= max_step_tokens:
                return tokens, log_probs, delimited, ended

    step, ended = 0, False
    while not ended:
        writer = "student"
        if p is not None:
            coin = float(jax.random.uniform(jax.random.fold_in(coin_key, step)))
            writer = "teacher" if coin < p else "student"
        tokens, log_probs, delimited, ended = write_step(writer)
        empty = len(tokens) == 1 and tokens[0] in eos_ids
        if beta is not None and not empty:
            pbar = {
                name: value(tokens, -np.asarray(x), token_bytes, delimiter, delimited)
                for name, x in log_probs.items()
            }
            if beta > 0:
                gap = math.log(pbar["teacher"]) - math.log(beta) - math.log(pbar["student"])
                row.margin = min(row.margin, abs(gap))
            if not pbar["teacher"] > beta * pbar["student"]:
                before = len(tokens)
                writer = "teacher"
                row.rejected += 1
                tokens, _, delimited, ended = write_step(writer)
                empty = len(tokens) == 1 and tokens[0] in eos_ids
                row.shorter += len(tokens) < before
        row.response += tokens
        row.writers += [writer] * len(tokens)
        row.steps += [max(step - 1, 0) if empty else step] * len(tokens)
        if empty:
            row.empty = True
        else:
            step += 1
            row.student_steps += writer == "student"
            row.teacher_steps += writer == "teacher"
            row.across += delimited and delimiter not in token_bytes[tokens[-1]]
            row.at_budget += not ended and not delimited
    row.truncated = row.response[-1] not in eos_ids
    return row
