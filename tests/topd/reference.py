"""TOPD's targets, caps and loss, written from the equations in plain Python, row by row."""

from __future__ import annotations

import collections
import math

import numpy as np

from . import tiny_probed as tp


def windows(probe):
    """(row, window, first position, student's tokens, teacher's tokens, plan) of every window."""
    for b, w in zip(*np.nonzero(np.asarray(probe.starts.valid_BxW)), strict=True):
        student = np.asarray(probe.student_BxWxK[b, w, : probe.student_counts_BxW[b, w]]).tolist()
        teacher = np.asarray(probe.teacher_BxWxK[b, w, : probe.teacher_counts_BxW[b, w]]).tolist()
        plan = np.asarray(probe.plan_BxWxKxK[b, w], np.float64)
        yield b, w, int(probe.starts.at_BxW[b, w]), student, teacher, plan


def targets(student, teacher, plan, settings):
    """[(target as a dict over token ids, weight)] of the states, and the states' tokens."""
    states = student if settings.context == "student" else teacher
    if settings.plan == "identity":
        count = min(len(states), len(teacher))
        plan = np.eye(len(plan)) / count
        plan[count:] = 0
    found = []
    for i in range(len(states)):
        mass = collections.defaultdict(float)
        for j, token in enumerate(teacher):
            if plan[i, j] > 0:
                mass[token] += plan[i, j]
        total = sum(mass.values())
        if total == 0:
            found.append(({}, 0.0))
            continue
        count = min(len(states), len(teacher)) if settings.plan == "identity" else len(states)
        weight = {"one": 1.0, "plan": total, "scaled": total * count}[settings.rows]
        found.append(({token: x / total for token, x in mass.items()}, weight))
    return found, states


def trajectory_loss(params, trajectories, probe, guided, settings) -> float:
    """L_traj: every state is run alone, behind its prefix."""
    sums, weights = [], []
    for b, w, at, student, teacher, plan in windows(probe):
        if not guided[b, w]:
            continue
        prefix = np.asarray(trajectories.tokens_BxT[b, :at]).tolist()
        found, states = targets(student, teacher, plan, settings)
        log_p = tp.log_probs(params, tp.STUDENT, [*prefix, *states])
        terms = []
        for i, (target, weight) in enumerate(found):
            kl = sum(
                y * (math.log(y) - log_p[len(prefix) - 1 + i, token]) for token, y in target.items()
            )
            terms.append(weight * kl)
        sums.append(sum(terms))
        weights.append(sum(weight > 0 for _, weight in found))
    if not sums:
        return 0.0
    return sum(sums) / (sum(weights) if settings.reduction == "mean" else len(sums))


def divergences(params, trajectories) -> np.ndarray:
    """Reverse KL at every token [B, T]; 0 at the first."""
    rows = []
    for text in np.asarray(trajectories.tokens_BxT):
        log_p = tp.log_probs(params, tp.STUDENT, text)[:-1]
        log_q = tp.log_probs(tp.TEACHER_PARAMS, tp.TEACHER, text)[:-1]
        rows.append([0.0, *(np.exp(log_p) * (log_p - log_q)).sum(-1)])
    return np.array(rows)


def capped(losses: np.ndarray, trajectories, probe, settings) -> set[tuple[int, int]]:
    """(row, position) of the tokens that are capped: those chosen that exceed their row's median."""
    eligible = np.asarray(trajectories.divergence_weights_BxT) != 0
    found = [(float(probe.distance_BxW[b, w]), b, w, at) for b, w, at, *_ in windows(probe)]
    sign = 1 if settings.objective == "cap_low" else -1
    found.sort(key=lambda x: (sign * x[0], x[1], x[2]))
    chosen = found[: round(settings.cap_share * len(found))]
    return {(b, at) for _, b, _, at in chosen if losses[b, at] > np.median(losses[b][eligible[b]])}
