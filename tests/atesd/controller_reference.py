"""The controller in plain NumPy, float64, from the equations; nothing is accumulated online.

Whole histories are kept, and every number is computed from them anew: averages by their recurrence
from the first observation, Eq. 8 as sums over i = 1..L, gradients of Eq. 9 by hand.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, digamma, expit, polygamma


def gain(losses, t0, look_ahead, discount):
    """G_lp of Eq. 8; losses[t] is l_t."""
    return sum(
        discount ** (i - 1) * max(0.0, losses[t0 + i - 1] - losses[t0 + i])
        for i in range(1, look_ahead + 1)
    )


def grounding(log_probs, t0, look_ahead, discount):
    """G_gt of Eq. 8; log_probs[t] is q_t, and q_0 does not exist."""
    weights = [discount ** (i - 1) for i in range(1, look_ahead + 1)]
    terms = [w * log_probs[t0 + i] for i, w in enumerate(weights, start=1)]
    return sum(terms) / sum(weights)


def average(observations, decay):
    """Moving average that starts at the first observation."""
    value = observations[0]
    for x in observations[1:]:
        value = decay * value + (1 - decay) * x
    return value


def standardised(values):
    """The last value, by mean and standard deviation of all; 0 if there are fewer than two."""
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return 0.0
    return (values[-1] - np.mean(values)) / np.std(values)


def spread(values):
    """1 / standard deviation; 0 for a constant."""
    return 0.0 if np.ptp(values) <= 1e-12 * np.abs(values).max() else 1 / np.std(values)


def forward(params, s):
    """(hidden, output, A, B) of the policy in state s [..., F]."""
    h = np.tanh(s @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    o = h @ params["output"]["kernel"] + params["output"]["bias"]
    shapes = 1 + np.logaddexp(0, o)
    return h, o, shapes[..., 0], shapes[..., 1]


def log_density(x, a, b):
    return (a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - betaln(a, b)


def entropy(a, b):
    return betaln(a, b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)


def loss_and_gradient(params, s, x, reward, weight, target):
    """Eq. 9 and its gradient; s [B, G, F], x and reward [B, G]."""
    centred = reward - reward.mean(0)
    advantage = centred / (reward.std(0) + 1e-6)
    h, o, a, b = forward(params, s)
    excess = np.maximum(0, entropy(a, b) - target)
    loss = -np.mean(advantage * log_density(x, a, b)) + weight * np.mean(excess**2)

    both = digamma(a + b)
    trigamma_both = (a + b - 2) * polygamma(1, a + b)
    d_entropy = [trigamma_both - (p - 1) * polygamma(1, p) for p in (a, b)]
    d_log = [np.log(x) - digamma(a) + both, np.log1p(-x) - digamma(b) + both]
    d_shapes = np.stack(
        [
            (-advantage * dl + weight * 2 * excess * de) / x.size
            for dl, de in zip(d_log, d_entropy, strict=True)
        ],
        axis=-1,
    )
    d_o = (d_shapes * expit(o)).reshape(-1, 2)
    d_h = (d_o @ params["output"]["kernel"].T) * (1 - h.reshape(len(d_o), -1) ** 2)
    return loss, {
        "hidden": {"kernel": s.reshape(len(d_o), -1).T @ d_h, "bias": d_h.sum(0)},
        "output": {"kernel": h.reshape(len(d_o), -1).T @ d_o, "bias": d_o.sum(0)},
    }


class Adam:
    """Adam with its usual constants."""

    def __init__(self, rate):
        self.rate, self.time, self.m, self.v = rate, 0, {}, {}

    def step(self, params, gradient):
        self.time += 1
        for layer in params:
            for name in params[layer]:
                g, at = gradient[layer][name], (layer, name)
                self.m[at] = 0.9 * self.m.get(at, 0) + 0.1 * g
                self.v[at] = 0.999 * self.v.get(at, 0) + 0.001 * g**2
                m, v = self.m[at] / (1 - 0.9**self.time), self.v[at] / (1 - 0.999**self.time)
                params[layer][name] = params[layer][name] - self.rate * m / (np.sqrt(v) + 1e-8)


def run(settings, params, steps, history, exposure_of):
    """The whole training.

    Args:
      params: initial policy parameters.
      history: `loss`, `mismatch`, `log_prob`, `confidence` [steps, G], as batch k shows them;
        `probe_nll`, `probe_loss` [steps, G], read at decisions.
      exposure_of: (decision index, A [G], B [G]) -> a [G], the draws.

    Returns:
      One dict per batch: what the controller knows after it.
    """
    s = settings
    params = {k: dict(v) for k, v in params.items()}
    adam = Adam(s.learning_rate)
    seen, raw, decisions, done, batch, records = [], [], [], [], [], []
    last = {"reward": np.zeros(s.groups), "gain": np.zeros(s.groups), "loss": 0.0, "updates": 0}
    last["grounding"] = np.zeros(s.groups)
    for k in range(steps):
        if k % s.hold == 0:
            refreshes = [history["probe_nll"][t] for t in range(0, k + 1, s.hold)]
            row = [
                average([x["exposure"] for x in seen], s.ema_decay) if k else None,
                average(history["loss"][:k], s.ema_decay) if k else None,
                average(history["mismatch"][:k], s.ema_decay) if k else None,
                average(refreshes, s.ema_decay),
                history["confidence"][k - 1] if k else None,
            ]
            raw.append(row)
            features = np.zeros((s.groups, 6 + (s.groups > 1)))
            features[:, 0] = k / steps
            for g in range(s.groups):
                for column in range(5):
                    past = [r[column][g] for r in raw if r[column] is not None]
                    features[g, 1 + column] = standardised(past)
            if s.groups > 1:
                features[:, 6] = [2 * g / (s.groups - 1) - 1 for g in range(s.groups)]
            _, _, a, b = forward(params, features)
            exposure = exposure_of(len(decisions), a, b)
            decisions.append((k, features, exposure))
        seen.append({"exposure": exposure})
        credited = history["loss"]
        if s.reward_loss == "probe":
            credited = np.array([history["probe_loss"][t - t % s.hold] for t in range(steps)])
        for t0, features_0, exposure_0 in decisions:
            if t0 + s.look_ahead != k:
                continue
            q = np.concatenate([np.full((1, s.groups), np.nan), history["log_prob"]])
            gains = [gain(credited[:, g], t0, s.look_ahead, s.discount) for g in range(s.groups)]
            truths = [grounding(q[:, g], t0, s.look_ahead, s.discount) for g in range(s.groups)]
            done.append((np.array(gains), np.array(truths)))
            batch.append((features_0, exposure_0, *done[-1]))
            scale = [1.0, 1.0]
            if s.standardise_reward:
                scale = [spread(np.array([d[term] for d in done])) for term in (0, 1)]
            rewards = [r[2] * scale[0] + s.lambda_gt * r[3] * scale[1] for r in batch]
            last |= {"gain": done[-1][0], "grounding": done[-1][1], "reward": rewards[-1]}
            if len(batch) == s.decisions_per_update:
                stacked = [np.stack([row[i] for row in batch]) for i in (0, 1)]
                weight = 0.0 if k < s.entropy_warmup else s.entropy_weight
                last["loss"], gradient = loss_and_gradient(
                    params, *stacked, np.stack(rewards), weight, s.entropy_target
                )
                adam.step(params, gradient)
                last["updates"] += 1
                batch = []
        records.append(
            {
                "exposure": exposure,
                "a": a,
                "b": b,
                "features": features,
                "completed": len(done),
                **last,
                "params": {k: dict(v) for k, v in params.items()},
            }
        )
    return records
