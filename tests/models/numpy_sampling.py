"""What filters do to a distribution, in numpy, for the tests to compare with."""

import numpy as np


def reference(logits, temperature=1.0, top_p=1.0, top_k=0, vocab_size=None):
    """Probabilities of every token, in float64, one row at a time, written token by token.

    As transformers: temperature, then top-k (ties with the k-th stay), then the smallest set of
    most likely tokens whose mass reaches top-p.
    """
    logits = np.array(logits, np.float64)
    rows = []
    for row in logits:
        allowed = set(range(len(row) if vocab_size is None else min(vocab_size, len(row))))
        if temperature == 0:
            best = min(allowed, key=lambda t: (-row[t], t))
            rows.append(np.eye(len(row))[best])
            continue
        row = row / temperature
        if 0 < top_k < len(row):
            kth = sorted((row[t] for t in allowed), reverse=True)[:top_k][-1]
            allowed = {t for t in allowed if row[t] >= kth}
        weights = {t: np.exp(row[t] - max(row[u] for u in allowed)) for t in allowed}
        total = sum(weights.values())
        if top_p < 1:
            kept, mass = set(), 0.0
            for token in sorted(allowed, key=lambda t: (-row[t], t)):
                if mass >= top_p:
                    break
                kept.add(token)
                mass += weights[token] / total
            weights = {t: weights[t] for t in kept}
            total = sum(weights.values())
        rows.append(np.array([weights.get(t, 0.0) / total for t in range(len(row))]))
    return np.stack(rows)
