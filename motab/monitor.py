"""The teacher's watch over a student's steps: values, boundaries, and where steps end.

A step's value is streamed token by token, so it does not depend on how the text is cut into
chunks. The delimiter's tokens do not count (unless a step has no others); a token that holds
anything besides the delimiter does.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from distill.scores import TokenScores
from distill.steps import StepTable
from motab.settings import MotabSettings


class MonitorState(flax.struct.PyTreeNode):
    """The open step of every row.

    Attributes:
      automaton_B: bytes of the delimiter matched so far.
      step_B: index of the open step.
      count_B: its tokens so far.
      total_B: sum of its costs, in nats, but for those still in the ring.
      ring_BxS, ring_bytes_BxS: costs and lengths of its latest tokens, latest first: any of them
        may turn out to belong to the delimiter.
      entropy_B: teacher's entropy at its start, in nats.
    """

    automaton_B: jax.Array
    step_B: jax.Array
    count_B: jax.Array
    total_B: jax.Array
    ring_BxS: jax.Array
    ring_bytes_BxS: jax.Array
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
    integers, floats = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, jnp.float32)
    ring = (batch, table.delimiter_bytes)
    return MonitorState(
        automaton_B=integers,
        step_B=integers,
        count_B=integers,
        total_B=floats,
        ring_BxS=jnp.zeros(ring, jnp.float32),
        ring_bytes_BxS=jnp.zeros(ring, jnp.int32),
        entropy_B=floats,
    )


def boundary(entropy: jax.Array, settings: MotabSettings) -> jax.Array:
    """gamma = gamma_0 exp(-alpha H), Eq. 6; H = 0 where the boundary is static."""
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
    span = table.delimiter_bytes

    def read(state: MonitorState, inputs):
        token, valid, final, eos, cost_B, entropy_B = inputs
        opens = state.count_B == 0
        empty = eos & opens  # Algorithm 1's empty step: nothing to judge
        active = valid & ~empty
        entropy_B = jnp.where(opens, entropy_B, state.entropy_B)
        total = state.total_B + jnp.where(state.count_B >= span, state.ring_BxS[:, -1], 0.0)
        ring = jnp.concatenate([cost_B[:, None], state.ring_BxS[:, :-1]], axis=1)
        num_bytes = table.num_bytes_V[token]
        ring_bytes = jnp.concatenate([num_bytes[:, None], state.ring_bytes_BxS[:, :-1]], axis=1)
        count = state.count_B + 1

        offset = table.end_VxS[token, state.automaton_B]
        delimited = offset > 0
        ends = active & (delimited | final | (count >= settings.max_step_tokens))

        # Bytes from each ring token's start to the delimiter's end; within the delimiter's length,
        # the token is the delimiter's, unless the newest one spills over.
        reach = jnp.cumsum(ring_bytes.at[:, 0].set(offset), axis=1)
        in_step = jnp.arange(span) < count[:, None]
        inside = (reach <= span) & (ring_bytes > 0) & in_step & delimited[:, None]
        inside = inside.at[:, 0].set(inside[:, 0] & (offset == num_bytes))
        content_count = count - jnp.sum(inside, axis=1)
        inside = inside & (content_count > 0)[:, None]
        content_count = jnp.where(content_count > 0, content_count, count)
        content = total + jnp.sum(jnp.where(in_step & ~inside, ring, 0.0), axis=1)
        value = jnp.exp(-content / content_count)

        output = Monitored(
            step=jnp.where(empty, jnp.maximum(state.step_B - 1, 0), state.step_B),
            ends=ends,
            value=value,
            boundary=boundary(entropy_B, settings),
            delimited=delimited,
        )
        read_on = MonitorState(
            automaton_B=jnp.where(ends, 0, table.next_state_VxS[token, state.automaton_B]),
            step_B=state.step_B + ends,
            count_B=jnp.where(ends, 0, count),
            total_B=jnp.where(ends, 0.0, total),
            ring_BxS=jnp.where(ends[:, None], 0.0, ring),
            ring_bytes_BxS=ring_bytes,
            entropy_B=entropy_B,
        )

        def keep(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(active.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(keep, read_on, state), output

    per_token = (
        tokens_BxC, valid_BxC, final_BxC, eos_BxC, cost(scores, settings.signal), scores.entropy,
    )  # fmt: skip
    inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), per_token)
    state, outputs = jax.lax.scan(read, state, inputs)
    return state, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)
