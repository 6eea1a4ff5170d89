"""What a sampled token's gap to the teacher is worth as an advantage, by the name of its gradient.

With y drawn from p, d = log q(y) - log p(y) and u = e^d, E[A grad log p] is minus the gradient of
KL(p, q) for A = d, and of KL(q, p) for A = u - 1 (`distill.losses.estimators`). Other things are in
use that look as if they would do. Their gradient vanishes or is that of something else, and a
config that names one is refused with the reason.
"""

from __future__ import annotations

from typing import Annotated

import jax

from distill.losses.estimators import advantage
from models.checks import Rule

PULLS = ("reverse_kl", "forward_kl")

_WHOLE = (
    "a divergence of the whole position is the same for every token that could be drawn, so that "
    "as an advantage its gradient is zero in expectation"
)
# Why each of these is no advantage.
REFUSED = {
    "k1": (
        "the gradient of log p - log q at a sampled token is zero in expectation, because the "
        "teacher drops out"
    ),
    "k2": "minus d^2 / 2 as an advantage has the gradient of no divergence: the sign of d is lost",
    "k3": (
        "minus (u - 1 - d) as an advantage follows grad KL(q, p) - grad KL(p, q), which is zero to "
        "first order where student and teacher are close"
    ),
    "low_var_kl": "it is k3 under another name, whose gradient as an advantage vanishes",
    "full_kl": _WHOLE,
    "top_k_kl": _WHOLE,
    "zscore": (
        "gaps divided by their spread over a batch are as large as ever where the student has come "
        "near the teacher: what is followed is the gradient of no divergence, and does not vanish "
        "where the two agree"
    ),
}

# Refused names pass here, so that `check_pull` can say why.
Pull = Annotated[str, Rule(lambda x: x in PULLS or x in REFUSED, f": choose one of {PULLS}.")]


def check_pull(field: str, name: str) -> None:
    """Refuses what has another gradient than its name says.

    Args:
      field: the whole name of the config's field.

    Raises:
      ValueError: says why.
    """
    if name in REFUSED:
        raise ValueError(f"{field}={name!r}: {REFUSED[name]}. Use one of {PULLS}.")


def pull(name: str, gap_BxT: jax.Array) -> jax.Array:
    """The advantage [B, T] whose policy gradient descends the divergence called `name`."""
    return advantage(name, gap_BxT)
