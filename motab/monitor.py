"""The teacher's watch over a student's steps: values, boundaries, and where steps end."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.losses.scores import TokenScores
from distill.steps.table import StepTable
from distill.steps.values import StepState, init_steps, read_token, scan_tokens
from motab.settings import MotabSettings


class MonitorState(flax.struct.PyTreeNode):
    """The open step of every row.

    Attributes:
      steps: its place, length and cost so far.
      entropy_B: teacher's entropy at its start, in nats.
    """

    steps: StepState
    entropy_B: jax.Array


class Monitored(flax.struct.PyTreeNode):
    """What the monitor says of C tokens, all [B, C].

    Attributes:
      step: step index of each token. An end-of-sequence token on its own is no step and carries
        the index of the step before it.
      ends: the step is complete with this token; the other fields mean something only here.
      value: V of the step (Eq. 5).
      boundary: gamma of the step (Eq. 6).
      delimited: the step ended with the delimiter, not with the text or a budget.
    """

    step: jax.Array
    ends: jax.Array
    value: jax.Array
    boundary: jax.Array
    delimited: jax.Array


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
) -> tuple[MonitorState, Monitored]:
    """Reads the next tokens of every row.

    Args:
      tokens_BxC: new tokens, the first `count_B` of each row.
      final_BxC: the text ends with this token, so the open step closes.
      eos_BxC: this token is an end of sequence.
      scores: the teacher's scores of the tokens [B, C].
    """
    valid_BxC = jnp.arange(tokens_BxC.shape[1]) < count_B[:, None]

    def read(state: MonitorState, inputs: tuple[jax.Array, ...]) -> tuple[MonitorState, Monitored]:
        token, valid, final, eos, cost_B, entropy_B = inputs
        opens = state.steps.count_B == 0
        entropy_B = jnp.where(opens, entropy_B, state.entropy_B)
        steps, seen = read_token(
            state.steps, token, valid, final, eos, cost_B, table, settings.max_step_tokens
        )
        # An empty step's entropy is kept, too: the next step's first token replaces it.
        state = MonitorState(steps, jnp.where(valid, entropy_B, state.entropy_B))
        return state, Monitored(
            seen.step, seen.ends, seen.value, boundary(entropy_B, settings), seen.delimited
        )

    costs_BxC = cost(scores, settings.signal)
    per_token = tokens_BxC, valid_BxC, final_BxC, eos_BxC, costs_BxC, scores.entropy
    return scan_tokens(read, state, per_token)
