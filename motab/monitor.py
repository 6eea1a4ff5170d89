"""The teacher's watch over a student's steps: values, boundaries, and where steps end."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.losses.scores import TokenScores
from distill.steps.table import StepTable
from distill.steps.values import Steps, StepState, init_steps, read_tokens
from models.decoding.decode import pick
from motab.settings import MotabSettings


class MonitorState(flax.struct.PyTreeNode):
    """The open step of every row.

    Attributes:
      steps: its place, length and cost so far.
      entropy_B: teacher's entropy at its start, in nats.
    """

    steps: StepState
    entropy_B: jax.Array


def init_monitor(batch: int, table: StepTable) -> MonitorState:
    """The state before the first token."""
    return MonitorState(init_steps(batch, table), jnp.zeros(batch, jnp.float32))


def boundary(entropy: jax.Array, settings: MotabSettings) -> jax.Array:
    """gamma = gamma_0 exp(-alpha H), Eq. 6, of entropy H [...]; H = 0 where it is static.

    Example:
      >>> import jax.numpy as jnp
      >>> settings = MotabSettings(gamma_0=0.3, alpha=1.0)
      >>> [f"{x:.3f}" for x in boundary(jnp.array([0.0, jnp.log(2)]), settings)]
      ['0.300', '0.150']
    """
    if settings.boundary == "static":
        return jnp.full_like(entropy, settings.gamma_0)
    return settings.gamma_0 * jnp.exp(-settings.alpha * entropy)


def cost(scores: TokenScores, signal: str) -> jax.Array:
    """The per-token D [B, C] in nats of V = exp(-mean D)."""
    return scores.nll if signal == "likelihood" else getattr(scores, signal)


def monitor(
    state: MonitorState,
    tokens_BxC: jax.Array,
    count_B: jax.Array,
    final_BxC: jax.Array,
    eos_BxC: jax.Array,
    scores: TokenScores,
    table: StepTable,
    settings: MotabSettings,
) -> tuple[MonitorState, Steps, jax.Array]:
    """Reads the next tokens of every row: their steps, and gamma (Eq. 6) of each one's step [B, C].

    Args:
      tokens_BxC: new tokens, the first `count_B` of each row.
      final_BxC: the text ends with this token, so the open step closes.
      eos_BxC: this token is an end of sequence.
      scores: the teacher's scores of the tokens [B, C].
    """
    costs_BxC = cost(scores, settings.signal)
    steps, seen = read_tokens(
        state.steps,
        tokens_BxC,
        count_B,
        final_BxC,
        eos_BxC,
        costs_BxC,
        table,
        settings.max_step_tokens,
    )
    # A step's entropy is that of its first token, which may lie in an earlier chunk.
    before_Bx1 = state.entropy_B[:, None]
    first_BxC = jnp.maximum(jnp.arange(tokens_BxC.shape[1]) + 2 - seen.count, 0)
    known = jnp.concatenate([before_Bx1, scores.entropy], axis=1)
    entropy_BxC = jnp.take_along_axis(known, first_BxC, axis=1)
    latest_B = pick(jnp.concatenate([before_Bx1, entropy_BxC], axis=1), count_B)
    return MonitorState(steps, latest_B), seen, boundary(entropy_BxC, settings)
