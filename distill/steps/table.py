"""Where reasoning steps end: a delimiter found by an automaton over token ids, inside jit."""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class StepTable(flax.struct.PyTreeNode):
    """The delimiter's automaton; state s means that s bytes of the delimiter have been matched.

    Attributes:
      next_state_VxQ: state after a token, for the state before it. 0 where the delimiter ended
        in the token: what the token spills over belongs to the step that it ends.
      end_VxQ: number of the token's bytes up to and including the delimiter's end; 0 where the
        delimiter does not end in the token.
      num_bytes_V: length of each token, in bytes.
    """

    next_state_VxQ: jax.Array
    end_VxQ: jax.Array
    num_bytes_V: jax.Array

    @property
    def delimiter_bytes(self) -> int:
        """Length of the delimiter, in bytes."""
        return self.next_state_VxQ.shape[1]


def make_step_table(token_bytes: Sequence[bytes], delimiter: str) -> StepTable:
    """Builds the table once per tokenizer and delimiter.

    Args:
      token_bytes: the bytes each token id stands for; empty for special tokens, which no
        delimiter reaches across.
      delimiter: text that ends a step, such as `".\\n\\n"`.

    Raises:
      ValueError: an empty delimiter.

    Example:
      >>> table = make_step_table([b"a", b".", b"\\n", b".\\n\\nb"], ".\\n\\n")
      >>> table.delimiter_bytes, table.end_VxQ[3].tolist()
      (3, [3, 3, 3])
    """
    pattern = delimiter.encode()
    if not pattern:
        raise ValueError("The step delimiter is empty; give the text that ends a step.")
    size = len(pattern)
    next_state = np.zeros((len(token_bytes), size), np.int32)
    end = np.zeros_like(next_state)
    for token, text in enumerate(token_bytes):
        for state in range(size if text else 0):
            read = pattern[:state] + text
            at = read.find(pattern)
            if at >= 0:
                end[token, state] = at + size - state
            else:
                next_state[token, state] = max(n for n in range(size) if read.endswith(pattern[:n]))
    return StepTable(
        next_state_VxQ=jnp.asarray(next_state),
        end_VxQ=jnp.asarray(end),
        num_bytes_V=jnp.asarray([len(t) for t in token_bytes], jnp.int32),
    )
