"""Reading a text step by step, one token at a time: where steps end and what they cost.

A step's cost is the mean over its tokens of a cost per token; with -log p(token) for it,
exp(-cost) is the step's geometric mean probability (MOTAB Eq. 5). It is streamed, so it does not
depend on how the text is cut into chunks. The delimiter's tokens do not count (unless a step has
no others); a token that holds anything besides the delimiter does.
"""

from __future__ import annotations

from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp

from distill.steps.table import StepTable

TreeT = TypeVar("TreeT")


class StepState(flax.struct.PyTreeNode):
    """The open step of every row.

    Attributes:
      automaton_B: bytes of the delimiter matched so far.
      step_B: index of the open step.
      count_B: its tokens so far.
      total_B: sum of its costs, in nats, but for those still in the ring.
      ring_BxQ, ring_bytes_BxQ: costs and lengths of its latest tokens, latest first: any of them
        may turn out to belong to the delimiter.
    """

    automaton_B: jax.Array
    step_B: jax.Array
    count_B: jax.Array
    total_B: jax.Array
    ring_BxQ: jax.Array
    ring_bytes_BxQ: jax.Array


class Steps(flax.struct.PyTreeNode):
    """What the tokens come to, each [B] for one token or [B, C] for C tokens.

    Attributes:
      step: step index of the token. An end-of-sequence token on its own is no step and carries
        the index of the step before it.
      count: tokens of its step up to and including it.
      ends: the step is complete with this token; the fields below mean something only here.
      cost: mean cost of the step's tokens, without the delimiter's.
      value: V = exp(-cost).
      delimited: the step ended with the delimiter, not with the text or a budget.
    """

    step: jax.Array
    count: jax.Array
    ends: jax.Array
    cost: jax.Array
    value: jax.Array
    delimited: jax.Array


def init_steps(batch: int, table: StepTable) -> StepState:
    """The state before the first token."""
    integers, ring = jnp.zeros(batch, jnp.int32), (batch, table.delimiter_bytes)
    return StepState(
        automaton_B=integers,
        step_B=integers,
        count_B=integers,
        total_B=jnp.zeros(batch, jnp.float32),
        ring_BxQ=jnp.zeros(ring, jnp.float32),
        ring_bytes_BxQ=jnp.zeros(ring, jnp.int32),
    )


def restart(state: StepState, rows_B: jax.Array, step_B: jax.Array) -> StepState:
    """The state of `rows_B` before the first token of step `step_B`; other rows as they are."""
    fresh = jax.tree.map(jnp.zeros_like, state).replace(step_B=step_B)
    return select(rows_B, fresh, state)


def select(rows_B: jax.Array, new: TreeT, old: TreeT) -> TreeT:
    """`new` in the given rows, `old` in the others; rows come first in every leaf."""
    return jax.tree.map(
        lambda x, y: jnp.where(rows_B.reshape(-1, *[1] * (x.ndim - 1)), x, y), new, old
    )


def read_tokens(
    state: StepState,
    tokens_BxC: jax.Array,
    count_B: jax.Array,
    final_BxC: jax.Array,
    eos_BxC: jax.Array,
    costs_BxC: jax.Array,
    table: StepTable,
    max_step_tokens: int,
) -> tuple[StepState, Steps]:
    """Reads the next tokens of every row, one after the other.

    Args:
      tokens_BxC: new tokens, the first `count_B` of each row; the others change nothing.
      final_BxC: the text ends with this token, so the open step closes.
      eos_BxC: this token is an end of sequence.
      costs_BxC: its cost, in nats.
      max_step_tokens: a step that reaches it closes.
    """
    span = table.delimiter_bytes

    def read(state: StepState, token: tuple[jax.Array, ...]) -> tuple[StepState, Steps]:
        token_B, valid_B, final_B, eos_B, cost_B = token
        empty = eos_B & (state.count_B == 0)  # MOTAB's Algorithm 1: an empty step, nothing to judge
        active = valid_B & ~empty
        total = state.total_B + jnp.where(state.count_B >= span, state.ring_BxQ[:, -1], 0.0)
        ring = jnp.concatenate([cost_B[:, None], state.ring_BxQ[:, :-1]], axis=1)
        num_bytes = table.num_bytes_V[token_B]
        ring_bytes = jnp.concatenate([num_bytes[:, None], state.ring_bytes_BxQ[:, :-1]], axis=1)
        count = state.count_B + 1

        offset = table.end_VxQ[token_B, state.automaton_B]
        delimited = offset > 0
        ends = active & (delimited | final_B | (count >= max_step_tokens))

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

        output = Steps(
            step=jnp.where(empty, jnp.maximum(state.step_B - 1, 0), state.step_B),
            count=count,
            ends=ends,
            cost=content / content_count,
            value=jnp.exp(-content / content_count),
            delimited=delimited,
        )
        read_on = StepState(
            automaton_B=jnp.where(ends, 0, table.next_state_VxQ[token_B, state.automaton_B]),
            step_B=state.step_B + ends,
            count_B=jnp.where(ends, 0, count),
            total_B=jnp.where(ends, 0.0, total),
            ring_BxQ=jnp.where(ends[:, None], 0.0, ring),
            ring_bytes_BxQ=ring_bytes,
        )
        return select(active, read_on, state), output

    valid_BxC = jnp.arange(tokens_BxC.shape[1]) < count_B[:, None]
    per_token = tokens_BxC, valid_BxC, final_BxC, eos_BxC, costs_BxC
    state, seen = jax.lax.scan(read, state, jax.tree.map(_turned, per_token))
    return state, jax.tree.map(_turned, seen)


def _turned(x: jax.Array) -> jax.Array:
    """[B, C] as [C, B], and back."""
    return jnp.moveaxis(x, 1, 0)
