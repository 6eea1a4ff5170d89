"""Tokens drawn at random, as plans read them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from family import METHODS, Tokens

GROUP = 3
# Settings under which every branch of a plan acts; the defaults are tried besides.
SETTINGS = {
    "kdrl": [
        {"form": form, "gate": gate, "pull": pull, "beta": 0.3, "beta_decay": 0.02, "beta_min": 0.1}
        for form, gate, pull in (
            ("loss", "none", "reverse_kl"),
            ("loss", "response", "forward_kl"),
            ("advantage", "group", "reverse_kl"),
        )
    ],
    "plan_opd": [{"pull": "forward_kl"}],
    "opd_on_wrong": [{"pull": "forward_kl"}],
    "hdpo": [{"beta": 0.4, "pull": "forward_kl"}],
    "switch": [
        {"after": 7},
        {"after": 100, "mask_ends": False},
        {"after": 100, "pull": "forward_kl"},
    ],
    "rlad": [{"alpha": 0.3, "bound": 0.5}],
    "rlsd": [{"weight": 0.8, "over": 20, "bound": 0.4}, {"bound": 1.0}],
    "sdar": [{"weight": 0.7, "sharpness": 2.0}],
    "scope": [{"tau": 3.0, "group_scale": "sum1"}],
    "lightning": [{"advantage_clip": 0.3}, {"advantage_clip": 0.0}],
    "vopd": [{"baseline": 0.5}],
    "jsd_opd": [{"beta": 0.2}],
    "power_opd": [{"power": 0.1}],
    "g_opd": [{"extrapolation": 2.0}],
    "eopd": [{"threshold": 0.3, "weight": 0.2, "top_k": 2}],
    "tip": [{"share": 0.3}, {"share": 1.0}],
    "iw_opd": [{"bonus": 2.0}],
    "curve": [{"top": 2, "top_weight": 2.0, "first": 2.0, "last": 1.0}],
}
CASES = [(name, fields) for name in METHODS for fields in ({}, *SETTINGS.get(name, ()))]


def case_id(case: object) -> str:
    return str(case) if isinstance(case, str) else ",".join(f"{k}={v}" for k, v in case.items())


def settings_of(name: str, fields: dict) -> object:
    return METHODS[name].settings(**fields)


def draw(
    seed: int, rows: int = 2 * GROUP, width: int = 12, dtype=jnp.float32, step: int = 9
) -> Tokens:
    """Rows of a prompt and a response each, in groups; some tokens far from the teacher's, one row empty."""
    rng = np.random.default_rng(seed)
    shape = (rows, width)
    lengths = rng.integers(2, width + 1, rows)
    starts = rng.integers(0, 2, rows)
    at = np.arange(width)
    counted = (at >= starts[:, None]) & (at < lengths[:, None])
    counted &= rng.random(shape) < 0.9
    counted[rng.integers(rows)] = False
    segments = (at < lengths[:, None]).astype(np.int32)
    log_p = -rng.exponential(1.0, shape)
    noise = [rng.normal(0, scale, shape) for scale in (0.3, 1.0, 1.0)]
    rewards = rng.integers(0, 2, rows).astype(float)
    rewards[:GROUP] = seed % 2  # a group without signal
    advantage = rng.normal(0, 1, rows) * (rewards.reshape(-1, GROUP).std(1).repeat(GROUP) > 0)

    def of_rows(values_B: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values_B[:, None], shape)

    arrays = {
        "log_p_BxT": log_p,
        "log_b_BxT": log_p + noise[0],
        "log_q_BxT": log_p + noise[1],
        "log_ref_BxT": log_p + noise[2],
        "student_entropy_BxT": rng.exponential(0.7, shape),
        "teacher_entropy_BxT": rng.exponential(0.7, shape),
        "kl_BxT": rng.exponential(0.3, shape),
        "advantage_BxT": of_rows(advantage),
        "right_BxT": of_rows(rewards),
        "group_right_BxT": of_rows(rewards.reshape(-1, GROUP).max(1).repeat(GROUP)),
        "row_weight_BxT": of_rows(rng.random(rows)),
        "ends_BxT": (at == lengths[:, None] - 1).astype(float),
    }
    masked = {name: jnp.asarray(np.where(counted, x, 0.0), dtype) for name, x in arrays.items()}
    weights = jnp.asarray(counted, dtype)
    return Tokens(weights, jnp.asarray(segments), **masked, step=jnp.asarray(step))


def pack(t: Tokens, rows: tuple[tuple[int, ...], ...]) -> Tokens:
    """The rows of `t` side by side, as `rows` says, each a segment of its own."""
    whole = {f.name: getattr(t, f.name) for f in dataclasses.fields(t)}

    def joined(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.concatenate([x[b] for b in row]) for row in rows])

    segments = jnp.where(t.segment_ids_BxT > 0, t.segment_ids_BxT, 0)
    width = segments.shape[1]
    numbers = jnp.stack([jnp.repeat(jnp.arange(1, len(row) + 1), width) for row in rows])
    packed = {
        name: joined(x) for name, x in whole.items() if name not in ("step", "segment_ids_BxT")
    }
    # Rows end in padding of their own segment here: it has no weight.
    return Tokens(**packed, segment_ids_BxT=numbers, step=t.step)
