"""Every plan token by token in NumPy and float64, from the papers' equations."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from family import Tokens


def responses(t: Tokens) -> list[list[SimpleNamespace]]:
    """The tokens that train, response by response; each knows its place (b, i)."""
    arrays = {
        name.removesuffix("_BxT"): np.asarray(getattr(t, name), np.float64)
        for name in t.__dataclass_fields__
        if name.endswith("_BxT") and getattr(t, name) is not None
    }
    found: dict[tuple[int, int], list[SimpleNamespace]] = {}
    for b, i in zip(*np.nonzero(arrays["weights"]), strict=True):
        token = SimpleNamespace(
            at=(int(b), int(i)), **{k: float(x[b, i]) for k, x in arrays.items()}
        )
        token.d = token.log_q - token.log_p
        token.log_r = token.log_p - token.log_b
        found.setdefault((int(b), int(token.segment_ids)), []).append(token)
    return list(found.values())


def pulled(name: str, d: float) -> float:
    return d if name == "reverse_kl" else math.exp(d) - 1


def plan_grpo(s, token, row, k, step):
    return {"A": token.advantage, "rho": token.log_r}


def plan_opd(s, token, row, k, step):
    return {"A": pulled(s.pull, token.d), "rho": token.log_r}


def kdrl(s, token, row, k, step):
    beta = max(s.beta - s.beta_decay * step, s.beta_min)
    if s.gate == "response" and token.right:
        beta = 0.0
    if s.gate == "group" and token.group_right:
        beta = 0.0
    teacher = beta * pulled(s.pull, token.d)
    if s.form == "loss":
        return {"a": teacher, "A": token.advantage, "rho": token.log_r}
    return {"A": token.advantage + teacher, "rho": token.log_r}


def opd_on_wrong(s, token, row, k, step):
    c = token.right
    return {"A": c * token.advantage + (1 - c) * pulled(s.pull, token.d), "rho": token.log_r}


def hdpo(s, token, row, k, step):
    lost = token.group_right == 0
    return {"A": token.advantage + lost * s.beta * pulled(s.pull, token.d), "rho": token.log_r}


def switch(s, token, row, k, step):
    if step >= s.after:
        return {"A": token.advantage, "rho": token.log_r}
    masked = s.mask_ends and token.ends
    return {"A": 0.0 if masked else pulled(s.pull, token.d), "rho": token.log_r}


def rlad(s, token, row, k, step):
    clamped = min(max(token.log_p - token.log_q, -s.bound), s.bound)
    return {"A": token.advantage, "rho": s.alpha * token.log_r + (1 - s.alpha) * clamped}


def rlsd(s, token, row, k, step):
    share = s.weight * max(1 - step / s.over, 0)
    sign = (token.advantage > 0) - (token.advantage < 0)
    evidence = min(max(math.exp(sign * token.d), 1 - s.bound), 1 + s.bound)
    return {"A": token.advantage * (1 - share + share * evidence), "rho": token.log_r}


def sdar(s, token, row, k, step):
    gate = 1 / (1 + math.exp(-s.sharpness * token.d))
    return {"a": s.weight * gate, "A": token.advantage, "rho": token.log_r}


def scope(s, token, row, k, step):
    weight = token.row_weight
    return {"A": weight if token.right else weight * token.d, "rho": token.log_r}


def lightning(s, token, row, k, step):
    bound = s.advantage_clip or math.inf
    return {"A": min(max(token.d, -bound), bound), "rho": 0.0}


def vopd(s, token, row, k, step):
    return {"A": token.d + s.baseline * token.kl, "rho": token.log_r}


def jsd_opd(s, token, row, k, step):
    w = (1 - s.beta) + s.beta * math.exp(token.d)
    return {"A": (1 - s.beta) * math.log(w), "rho": token.log_r}


def power_opd(s, token, row, k, step):
    q, p = math.exp(token.log_q), math.exp(token.log_p)
    return {"A": q**s.power - p**s.power, "rho": token.log_r}


def g_opd(s, token, row, k, step):
    target = token.log_q + (s.extrapolation - 1) * (token.log_q - token.log_ref)
    return {"A": target - token.log_p, "rho": token.log_r}


def eopd(s, token, row, k, step):
    unsure = token.teacher_entropy > s.threshold
    return {"A": token.d, "rho": token.log_r, "w": s.weight if unsure else 0.0}


def tip(s, token, row, k, step):
    keep = math.ceil(np.float32(s.share) * np.float32(len(row)))
    order = sorted(range(len(row)), key=lambda j: (-row[j].student_entropy, j))
    kept = order.index(k) < keep
    return {"A": len(row) / keep * token.d if kept else 0.0, "rho": token.log_r}


def iw_opd(s, token, row, k, step):
    sizes = [abs(x.d) for x in row]
    share = sum(sizes[: k + 1]) / sum(sizes)
    return {"A": (1 + s.bonus * (1 - share)) * token.d, "rho": token.log_r}


def curve(s, token, row, k, step):
    order = sorted(range(len(row)), key=lambda j: (-row[j].kl, j))
    bonus = s.top_weight if order.index(k) < s.top else 1.0
    along = k / (len(row) - 1) if len(row) > 1 else 0.0
    return {"w": bonus * (s.first + (s.last - s.first) * along)}


def numpy_plan(name: str, settings: object, t: Tokens) -> dict[str, np.ndarray]:
    """a, w, A and log rho [B, T] of every token that trains; 0 elsewhere, and where a plan has none."""
    out = {key: np.zeros(t.weights_BxT.shape) for key in ("a", "w", "A", "rho")}
    for row in responses(t):
        for k, token in enumerate(row):
            for key, value in globals()[name](settings, token, row, k, int(t.step)).items():
                out[key][token.at] = value
    return out


def numpy_loss(
    plan: dict[str, np.ndarray], t: Tokens, s: object, clips: bool, divergence: np.ndarray | None
) -> tuple[float, float]:
    """The sum that is differentiated, and what it is divided by, as the equation has it."""
    total, count = 0.0, 0.0
    for row in responses(t):
        whole = sum(token.weights for token in row)
        for token in row:
            a, w, advantage, log_rho = (plan[key][token.at] for key in ("a", "w", "A", "rho"))
            rho = math.exp(log_rho)
            bounded = min(max(rho, 1 - s.clip_low), 1 + s.clip_high) if clips else rho
            each = -a * token.log_p - min(rho * advantage, bounded * advantage)
            if divergence is not None:
                each += w * divergence[token.at]
            total += token.weights * each / (whole if s.normalise == "sequence" else 1.0)
        count += 1.0 if s.normalise == "sequence" else whole
    return total, count


def numpy_scope_weights(
    s: object, log_p: np.ndarray, log_q: np.ndarray, right: np.ndarray, size: int
) -> np.ndarray:
    """Eqs. 4 and 5, group by group."""
    out = np.zeros(len(log_p))
    for start in range(0, len(log_p), size):
        for c in (0, 1):
            members = [b for b in range(start, start + size) if right[b] == c]
            powers = []
            for b in members:
                perplexity = math.exp(-(log_p if c else log_q)[b])
                powers.append(perplexity ** ((1 if c else -1) / s.tau))
            for b, power in zip(members, powers, strict=True):
                scale = len(members) if s.group_scale == "mean1" else 1
                out[b] = scale * power / sum(powers)
    return out
